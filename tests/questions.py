"""Where the questions of the pages are answered: notebook, question (its last words), words of the answer.

test_notebooks.py looks for the answer in the next outputs, titles and paragraphs.
"""

ANSWERS = {
    "06_full_training": {
        "You met the number in notebook 01.": "loss at the first step",
        "and how will the other two fail?": "is on its way, slowly",
        "Which half is worth more in 200 steps?": "Warm-up, by far",
        "by gradient descent and by AdamW?": "a thousand times as far as the second, AdamW equally far",
        "What does clipping to length 1 make of it?": "by hand: [0.6, 0.8]",
        "to change anything at all?": "it changes next to nothing",
        "Is that enough to add 1 and 1/128? And 1/256?": "1 + 1/256 = 1.0\n",
        "Will the loss notice?": "It does not notice.",
        "Was your order right?": "First letters, then words",
        "if the validation curve began to rise?": "would mean learning by heart",
        "And with top-k 5?": "It does: top-p keeps many candidates",
        "Is there a head for each?": "For each of the two characters before, yes",
    },
    "07_fast_and_safe": {
        "how many times as long as the forward pass?": "The backward pass takes",
        "do you expect of a whole training step?": "of the peak",
        "when only `block_size` doubles?": "Only the scores and sums",
        "at the start, and after training?": "They are, and the start exaggerates",
        "of 0.9, of 0.1 and of 0.01?": "0.01  0.03  0.12  0.40  1.09  0.70",
        "And AdamW's?": "Muon's first step: at least half as strong",
        "until the weakest arrives too?": "Six: from there on",
        "Does it pay, in steps and in time?": "In steps, it does",
        "the mean of all four?": "No: each part has to count by its size",
        "the more parts there are?": "Two hardly show",
        "which share really goes?": "51/256",
        "How much faster are the cheap masks?": "times as fast here",
        "Is the output the same?": "by hand and fused: equal up to rounding",
        "What would you do at character 33?": "shows the model those from 16 on",
        "What does a cache gain in a block of 256?": "times as fast with the cache",
        "and which next to nothing?": "The title names the first, the lowest bar the second",
        "Write down three things.": "the optimizers' averages",
        "After which step will it go on?": "went on after step 29",
        "become the gradient of the whole?": "By their mean",
        "miscounted its parameters?": "Two have: `gptiny` has half",
        "come out at its claim?": "Nearly: the two numbers of its row",
    },
}
