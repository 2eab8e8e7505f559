"""Where the questions of the pages are answered: notebook, question (its last words), words of the answer.

test_notebooks.py looks for the answer in the three cells after the question, their text outputs and titles.
"""

ANSWERS = {
    "06_full_training": {
        "You met the number in notebook 01.": "loss at the first step",
        "and how will the other two fail?": "is on its way, slowly",
        "Which half is worth more in 300 steps?": "Warm-up, by far",
        "and how much by AdamW?": "A thousand times as far, and equally far",
        "What does clipping to length 1 make of it?": "by hand: [0.6, 0.8]",
        "to change anything at all?": "it changes next to nothing",
        "Is that enough to add 1 and 1/128? And 1/256?": "1 + 1/256 = 1.0\n",
        "Will the loss notice?": "It does not.",
        "Was your order right?": "First letters, then words",
        "if the other one turned up?": "Training is lower, as it has to be",
        "And with top-k 5?": "It does: top-p follows the model",
        "Is there a head for each?": "There is.",
    }
}
