"""Known mutants: faults that somebody could make, each of which a test must notice. `make mutants`

python tests/mutants.py [--only WORDS] [--list]

Applies one fault after another to a copy of the repository and runs the tests that should notice it, then,
if it survives them, all others. Fails if a mutant lives or no longer applies: its old text must stand in
its file exactly once. Minutes for all of them; tests/test_mutants.py holds quickly that they still apply.
"""

import argparse
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COPIED = (
    "helpers tests tools notebooks data docs .ci .devcontainer .github pyproject.toml Makefile "
    "README.md CONTRIBUTING.md requirements.txt environment.yml LICENSE .gitattributes .gitignore "
    ".pre-commit-config.yaml"
).split()
# Not asked: what opens a browser, grades, or is about the form of a file or about this list.
NOT_ASKED = "browser classroom colab grade notebooks project mutants".split()
OTHERS = [".", *(f"--ignore=tests/test_{name}.py" for name in NOT_ASKED)]
SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "COURSE_DEVICE": "cpu",
    "COURSE_CORPUS": "",
    # Python could take the bytecode of one mutant for that of another of the same second and size.
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # nbval takes longer to load than most tests here to run
}
# Every run is a process of its own, forked where that is possible from one that has loaded what takes
# seconds to load: none has anything of the course in it.
FORKS = "forkserver" in multiprocessing.get_all_start_methods()
PROCESSES = multiprocessing.get_context("forkserver" if FORKS else "spawn")
if FORKS:
    PROCESSES.set_forkserver_preload(["pytest", "hypothesis", "torch", "torch._dynamo", "safetensors.torch"])
SECONDS = 300.0  # for the tests that should notice; all others have five times as long


@dataclass(frozen=True)
class Mutant:
    """One fault: in `file`, in helpers/, `new` stands where `old` should."""

    fault: str  # what it stands for
    file: str
    old: str
    new: str
    tests: str  # those that should notice, in tests/, with blanks between

    @property
    def path(self):
        return f"helpers/{self.file}"

    def applied(self, source):
        """The source with the fault in it. Raises ValueError unless the old text stands in it once."""
        if source.count(self.old) != 1:
            raise ValueError(
                f"{self.fault}: the old text stands {source.count(self.old)} times in {self.path}"
            )
        return source.replace(self.old, self.new)


# ---------------------------------------------------------------- seen to survive, once

SURVIVED = [
    Mutant(
        "a loaded model, which is in evaluation mode, is trained without dropout",
        "train.py", "model.to(device).train()", "model.to(device)",
        "test_train.py::test_a_model_in_evaluation_mode_is_trained_with_dropout",
    ),
    Mutant(
        "of two optimizers only the first has its gradients unscaled before they are clipped",
        "train.py",
        "for optimizer in history.optimizers for group", "for optimizer in history.optimizers[:1] for group",
        "test_train.py::test_gradients_are_clipped_at_their_true_length_in_float16",
    ),
    Mutant(
        "every process draws the same dropout",
        "train.py", "torch.manual_seed(config.seed + rank())", "torch.manual_seed(config.seed)",
        "test_train.py::test_two_processes_draw_their_own_dropout_and_share_the_batches",
    ),
    Mutant(
        "never no_sync: the processes exchange gradients after every part of a batch",
        "train.py", "keep_apart = world_size() > 1 and i < len(batch)", "keep_apart = False",
        "test_train.py::test_two_processes_meet_once_a_batch_after_its_last_part",
    ),
    Mutant(
        "SAVE_SECONDS without effect",
        "train.py", "since > SAVE_SECONDS", "False",
        "test_train.py::test_saves_come_at_sweeps_a_minute_apart_and_when_it_has_been_long",
    ),
    Mutant(
        "losses are read every 5,000 steps",
        "train.py", "READ_EVERY = 50 ", "READ_EVERY = 5000 ",
        "test_train.py::test_losses_are_read_every_50_steps_on_a_gpu_and_before_a_sweep_or_the_end",
    ),
    Mutant(
        "a token rate without block_size",
        "train.py", "len(history.losses) * config.batch_size * model.config.block_size",
        "len(history.losses) * config.batch_size",
        "test_train.py::test_the_bar_counts_tokens_not_sequences",
    ),
    Mutant(
        "past the block the view moves by one token, and the cache is good for nothing",
        "generate.py", "hop = max(block_size // 2, 1)", "hop = 1",
        "test_generate.py::test_past_the_block_most_tokens_cost_one_position",
    ),
    Mutant(
        "Muon's momentum is 0.5",
        "optimizers.py", "momentum=0.95,", "momentum=0.5,",
        "test_optimizers.py::test_muons_settings_are_pytorchs_unless_said_otherwise",
    ),
    Mutant(
        "AdamW is not fused",
        "optimizers.py", 'fused = next(model.parameters()).device.type != "mps"', "fused = False",
        "test_optimizers.py::test_adamw_takes_its_step_in_one_kernel",
    ),
    Mutant(
        "float16 is never chosen",
        "device.py", 'return "float16" if device.type == "cuda" else "float32"', 'return "float32"',
        "test_device.py::test_a_gpu_takes_bfloat16_from_ampere_on_and_float16_before",
    ),
    Mutant(
        "bfloat16 only from capability 9.0 on",
        "device.py", ">= (8, 0)", ">= (9, 0)",
        "test_device.py::test_a_gpu_takes_bfloat16_from_ampere_on_and_float16_before",
    ),
    Mutant(
        "LOCAL_RANK is ignored: all processes share the first GPU",
        "device.py", 'int(os.environ.get("LOCAL_RANK", 0))', "0",
        "test_device.py::test_each_process_of_torchrun_takes_a_gpu_of_its_own",
    ),
    Mutant(
        "a digest without the type of the numbers",
        "checkpoint.py", 'f"{name} {t.dtype} {tuple(t.shape)}"', 'f"{name} {tuple(t.shape)}"',
        "test_checkpoint.py::test_the_same_bytes_in_another_shape_or_type_are_damage",
    ),
    Mutant(
        "a digest without the shape of the tensors",
        "checkpoint.py", 'f"{name} {t.dtype} {tuple(t.shape)}"', 'f"{name} {t.dtype}"',
        "test_checkpoint.py::test_the_same_bytes_in_another_shape_or_type_are_damage",
    ),
    Mutant(
        "a checkpoint stays mapped where it was read: Windows could not replace it",
        "checkpoint.py", "file.get_tensor(name).clone()", "file.get_tensor(name)",
        "test_anywhere.py::test_what_is_read_from_a_checkpoint_lies_not_in_its_file",
    ),
    Mutant(
        "no flush of the folder: after a power cut the new name can be missing",
        "files.py", "            flush(path.parent)  #", "            pass  #",
        "test_files.py::test_the_contents_reach_the_disk_before_the_name_and_the_name_too",
    ),
    Mutant(
        "of a large text, too, a tenth is swept",
        "program/build.py", "min(0.1, LARGEST_SWEEP / max(len(ids), 1))", "0.1",
        "test_large_text.py::test_of_a_large_text_only_so_much_is_kept_to_be_swept",
    ),
    Mutant(
        "a download waits for ever when the server is silent",
        "files.py", "timeout=20.0, total=120.0", "timeout=None, total=120.0",
        "test_files.py::test_a_download_has_limits_without_being_told",
    ),
    Mutant(
        "a download that trickles in may take for ever",
        "files.py", "        if time.monotonic() > deadline:\n", "        if False:\n",
        "test_files.py::test_bytes_that_trickle_in_end_with_the_total_time",
    ),
    Mutant(
        "the panel of training does not pass on Muon's rate",
        "pictures/notebook_06.py", "TrainConfig(**recipe).muon_learning_rate * faster",
        "TrainConfig(**recipe).muon_learning_rate",
        "test_panels.py::test_muons_rate_moves_along_with_adamws",
    ),
]  # fmt: skip

# ---------------------------------------------------------------- the nine lesson files

DEVICE = [
    Mutant(
        "gradients stay between the passes of a compiled model, which a CUDA graph refuses",
        "device.py", "            model.zero_grad(set_to_none=True)  #", "            pass  #",
        "test_train.py::test_gradients_are_gone_before_a_compiled_model_runs_again",
    ),
    Mutant(
        "whatever goes wrong in compiling, memory that is full too, training goes on without",
        "device.py", "        if not cannot_compile(error):\n            raise\n", "",
        "test_train.py::test_only_a_machine_that_cannot_compile_trains_without",
    ),
    Mutant(
        "a process that cannot compile leaves the others waiting for it",
        "device.py", "any_process(device, not can_compile(device))", "[not can_compile(device)]",
        "test_train.py::test_if_one_process_cannot_compile_none_does",
    ),
    Mutant(
        "sizes of a compiled model may vary",
        "device.py", ", dynamic=False)", ")",
        "test_train.py::test_gradients_are_gone_before_a_compiled_model_runs_again",
    ),
    Mutant(
        "TF32 stays on after the training",
        "device.py", "        torch.set_float32_matmul_precision(before)\n", "        pass\n",
        "test_device.py::test_tf32_ends_with_the_training",
    ),
    Mutant(
        "autocast is asked for and not done",
        "device.py", 'if precision == "float32":', 'if precision != "float16":',
        "test_train.py::test_bfloat16_trains_like_float32",
    ),
    Mutant(
        "bfloat16 on a processor that is told to be an older one",
        "device.py",
        "torch.cpu._is_avx512_bf16_supported() and not older", "torch.cpu._is_avx512_bf16_supported()",
        "test_device.py::test_an_older_processor_gets_no_bfloat16",
    ),
    Mutant(
        "the mean over processes is a sum",
        "device.py", "        values /= world_size()\n", "",
        "test_device.py::test_the_mean_over_processes_is_a_mean",
    ),
    Mutant(
        "a process that wishes to stop is not heard by the others",
        "device.py", "distributed.ReduceOp.MAX", "distributed.ReduceOp.MIN",
        "test_runs.py::test_two_processes_go_on_exactly_with_dropout",
    ),
    Mutant(
        "freed memory is handed back to the system after every step",
        "device.py", "mallopt(mmap_threshold, 2**25)", "mallopt(mmap_threshold, 2**12)",
        "test_device.py::test_a_step_finds_the_memory_of_the_last_one",
    ),
]  # fmt: skip

DATA = [
    Mutant(
        "shifted targets: each token is to predict itself",
        "data.py", "return windows[:, :-1], windows[:, 1:]", "return windows[:, :-1], windows[:, :-1]",
        "test_data.py::test_batches_are_windows_of_the_text_and_targets_the_next_token",
    ),
    Mutant(
        "the last window of a text is never drawn",
        "data.py",
        "torch.randint(len(ids) - block_size, (", "torch.randint(max(len(ids) - block_size - 1, 1), (",
        "test_data.py::test_every_window_is_drawn_equally_often_the_last_one_too",
    ),
    Mutant(
        "batches do not follow their generator",
        "data.py", "generator=generator, device=draw_on)", "device=draw_on)",
        "test_data.py::test_equal_seeds_give_equal_batches",
    ),
    Mutant(
        "the validation text is trained on too",
        "data.py", "return ids[:n_train], ids[n_train:]", "return ids, ids[n_train:]",
        "test_data.py::test_split_is_ninety_to_ten_by_default",
    ),
    Mutant(
        "validation at the beginning of the text's share: nine tenths to test on",
        "data.py", "int((1 - val_fraction) * len(ids))", "int(val_fraction * len(ids))",
        "test_data.py::test_split_is_ninety_to_ten_by_default",
    ),
    Mutant(
        "a download is stored without being verified",
        "data.py",
        '        _verify(raw, TINYSHAKESPEARE_SHA256, TINYSHAKESPEARE_URL, "try again later")\n', "",
        "test_data.py::test_a_download_that_is_another_file_leaves_nothing",
    ),
    Mutant(
        "the newlines of Windows stay two characters",
        "data.py", 'return text.replace("\\r\\n", "\\n")', "return text",
        "test_data.py::test_byte_order_mark_and_windows_newlines_vanish",
    ),
    Mutant(
        "the plays are another text where git has turned their newlines into those of Windows",
        "data.py", 'hashlib.sha256(raw.replace(b"\\r\\n", b"\\n"))', "hashlib.sha256(raw)",
        "test_anywhere.py::test_a_checkout_with_the_newlines_of_windows_is_the_same_text",
    ),
]  # fmt: skip

TOKENIZER = [
    Mutant(
        "an unknown character becomes the first of the vocabulary",
        "tokenizer.py", "np.full(self._codes.max() + 2, -1,", "np.full(self._codes.max() + 2, 0,",
        "test_tokenizer.py::test_unknown_characters_are_named_with_their_position",
    ),
    Mutant(
        "merges cross the boundaries of words",
        "tokenizer.py", 'r" ?\\w+| ?[^\\s\\w]+|\\s+"', 'r"(?s:.+)"',
        "test_tokenizer.py::test_merges_never_cross_words",
    ),
    Mutant(
        "merges apply in the opposite of the order in which they were learned",
        "tokenizer.py", "self.rank.get(pair, len(self.rank))", "-self.rank.get(pair, -1)",
        "test_tokenizer.py::test_merges_are_learned_and_applied_greedily",
    ),
    Mutant(
        "the second half of a merged pair stays",
        "tokenizer.py", "            i += 2\n", "            i += 1\n",
        "test_tokenizer.py::test_byte_pairs_round_trip_and_shorten_what_they_learned",
    ),
    Mutant(
        "pairs are counted once a word, however often the word occurs",
        "tokenizer.py", "self.count[pair] += self.times[w]", "self.count[pair] += 1",
        "test_tokenizer.py::test_the_first_merge_is_the_most_frequent_pair "
        "test_tokenizer.py::test_merges_are_learned_and_applied_greedily",
    ),
    Mutant(
        "256 byte pairs more than asked for",
        "tokenizer.py", "while len(merges) < vocab_size - 256:", "while len(merges) < vocab_size:",
        "test_tokenizer.py::test_vocabulary_size_is_as_asked_or_as_the_text_allows",
    ),
]  # fmt: skip

MODEL = [
    Mutant(
        "fast dropout keeps its numbers as small as they were",
        "model.py", ".mul_(256 / (256 - limit))", "",
        "test_model.py::test_fast_dropout_drops_as_often_as_it_says_and_keeps_the_mean",
    ),
    Mutant(
        "fast dropout draws 63 bits where it uses 64: every eighth number is dropped half as often",
        "model.py", "random_(-(2**63), None)", "random_(2**63 - 1)",
        "test_model.py::test_fast_dropout_drops_as_often_as_it_says_and_keeps_the_mean",
    ),
    Mutant(
        "no mask in a single head",
        "model.py", '        scores = scores.masked_fill(~self.mask[:T, :T], float("-inf"))\n', "",
        "test_model.py::test_one_head_equals_the_formula",
    ),
    Mutant(
        "no mask in fused attention",
        "model.py", "is_causal=T_q > 1", "is_causal=False",
        "test_model.py::test_gpt_is_causal",
    ),
    Mutant(
        "a mask as if nothing were cached",
        "model.py", ".tril(T_k - T_q)", ".tril()",
        "test_model.py::test_causal_mask_also_for_positions_after_cached_ones",
    ),
    Mutant(
        "a missing scale in a single head",
        "model.py", "q @ k.transpose(-2, -1) * k.shape[-1] ** -0.5  # (B, T, T)", "q @ k.transpose(-2, -1)",
        "test_model.py::test_one_head_equals_the_formula",
    ),
    Mutant(
        "a missing scale where one token is generated",
        "model.py", "k.float().transpose(-2, -1) * q.shape[-1] ** -0.5", "k.float().transpose(-2, -1)",
        "test_model.py::test_all_ways_of_attend_are_one_function_in_outputs_and_gradients",
    ),
    Mutant(
        "scores scaled by all channels, where the head size belongs",
        "model.py", "alpha=q.shape[-1] ** -0.5", "alpha=(q.shape[1] * q.shape[-1]) ** -0.5",
        "test_model.py::test_all_ways_of_attend_are_one_function_in_outputs_and_gradients",
    ),
    Mutant(
        "swapped q and k in a single head",
        "model.py", "q, k = self.query(x), self.key(x)", "k, q = self.query(x), self.key(x)",
        "test_model.py::test_one_head_equals_the_formula",
    ),
    Mutant(
        "swapped q and k in fused attention",
        "model.py", "q, k, v = self.split_heads(x)", "k, q, v = self.split_heads(x)",
        "test_model.py::test_fused_attention_equals_the_formula",
    ),
    Mutant(
        "dropout in evaluation",
        "model.py", "self.dropout_p if self.training else 0.0", "self.dropout_p",
        "test_model.py::test_attention_weights_are_dropped_in_training_alone",
    ),
    Mutant(
        "wrong bias in a block's layer norm",
        "model.py",
        "self.ln_2 = nn.LayerNorm(config.n_embd, bias=config.bias)",
        "self.ln_2 = nn.LayerNorm(config.n_embd)",
        "test_model.py::test_each_bias_is_there_or_not",
    ),
    Mutant(
        "the last layer norm follows the bias of the head",
        "model.py", "self.ln_f = nn.LayerNorm(config.n_embd, bias=config.bias)",
        "self.ln_f = nn.LayerNorm(config.n_embd, bias=config.head_bias)",
        "test_model.py::test_each_bias_is_there_or_not",
    ),
    Mutant(
        "no residual around attention",
        "model.py", "x = x + self.attn(self.ln_1(x), cache)", "x = self.attn(self.ln_1(x), cache)",
        "test_model.py::test_block_is_pre_norm_with_two_residuals",
    ),
    Mutant(
        "no layer norm before the feed-forward",
        "model.py", "return x + self.ffwd(self.ln_2(x))", "return x + self.ffwd(x)",
        "test_model.py::test_block_is_pre_norm_with_two_residuals",
    ),
    Mutant(
        "the positions of new tokens begin at 0 again",
        "model.py", "positions = torch.arange(past, T, device=idx.device)",
        "positions = torch.arange(0, T - past, device=idx.device)",
        "test_generate.py::test_new_tokens_may_come_in_pieces_of_any_size",
    ),
    Mutant(
        "the residual stream swells with depth",
        "model.py", "std=0.02 / math.sqrt(2 * config.n_layer)", "std=0.02",
        "test_model.py::test_depth_does_not_swell_the_residual_stream",
    ),
    Mutant(
        "tied weights are equal only at the start",
        "model.py", "self.lm_head.weight = self.token_embedding.weight",
        "self.lm_head.weight.data.copy_(self.token_embedding.weight.data)",
        "test_model.py::test_tied_weights_are_one_tensor_and_count_once",
    ),
    Mutant(
        "the loss is a sum",
        "model.py", "F.cross_entropy(logits.flatten(0, 1), targets.flatten())",
        'F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")',
        "test_model.py::test_loss_is_the_mean_negative_log_probability_of_the_targets",
    ),
    Mutant(
        "sinusoidal positions are trained",
        "model.py", "from_pretrained(table, freeze=True)", "from_pretrained(table, freeze=False)",
        "test_model.py::test_sinusoidal_positions_are_used_and_never_trained",
    ),
    Mutant(
        "the backward pass is left out of the count of operations",
        "model.py", "return 6 * weights", "return 2 * weights",
        "test_model.py::test_flops_agree_with_a_count_of_the_matrix_products",
    ),
]  # fmt: skip

GENERATE = [
    Mutant(
        "top_k keeps one token too many",
        "generate.py", "ranked[..., top_k:]", "ranked[..., top_k + 1 :]",
        "test_generate.py::test_probabilities_are_those_of_the_definition",
    ),
    Mutant(
        "top_p drops the token that reaches p",
        "generate.py", "before = probs.cumsum(-1) - probs ", "before = probs.cumsum(-1) ",
        "test_generate.py::test_top_p_keeps_the_smallest_set_that_reaches_p",
    ),
    Mutant(
        "a low temperature flattens",
        "generate.py",
        "F.softmax(logits.float() / temperature, dim=-1)", "F.softmax(logits.float() * temperature, dim=-1)",
        "test_generate.py::test_temperature_is_a_power_of_the_probabilities",
    ),
    Mutant(
        "always the likeliest token",
        "generate.py", "(probs / noise.to(probs.device)).argmax", "probs.argmax",
        "test_generate.py::test_the_race_draws_what_multinomial_draws",
    ),
    Mutant(
        "keys and values of the old view are used in the new one",
        "generate.py", "view, begin, cache.length = view[:, start - begin :], start, 0",
        "view, begin, cache.length = view[:, start - begin :], start, cache.length - (start - begin)",
        "test_generate.py::test_with_and_without_cache_every_logit_is_equal_past_the_block_too",
    ),
    Mutant(
        "sampling with dropout",
        "generate.py", "    model.eval()\n", "",
        "test_generate.py::test_with_and_without_cache_every_logit_is_equal_past_the_block_too",
    ),
    Mutant(
        "the stop string is part of the text",
        "generate.py", "held = held[: held.index(stop)]", "held = held[: held.index(stop) + len(stop)]",
        "test_generate.py::test_text_ends_before_the_stop_string",
    ),
]  # fmt: skip

OPTIMIZERS = [
    Mutant(
        "a cosine that starts late",
        "optimizers.py", "progress = (step - config.warmup_steps) /",
        "progress = max(step - 2 * config.warmup_steps, 0) /",
        "test_optimizers.py::test_learning_rate_rises_in_a_line_and_falls_in_half_a_cosine",
    ),
    Mutant(
        "a warm-up that begins with a step of nothing",
        "optimizers.py", "(step + 1) / config.warmup_steps", "step / config.warmup_steps",
        "test_optimizers.py::test_learning_rate_rises_in_a_line_and_falls_in_half_a_cosine",
    ),
    Mutant(
        "decay on vectors",
        "optimizers.py", '"weight_decay": 0.0}', '"weight_decay": config.weight_decay}',
        "test_optimizers.py::test_who_decays_and_who_goes_to_muon",
    ),
    Mutant(
        "embeddings go to Muon too",
        "optimizers.py", 'p.dim() == 2 and n.startswith("blocks.")', "p.dim() == 2",
        "test_optimizers.py::test_who_decays_and_who_goes_to_muon",
    ),
    Mutant(
        "AdamW's betas are not those of the configuration",
        "optimizers.py", "betas = (config.beta1, config.beta2)", "betas = (0.9, 0.999)",
        "test_optimizers.py::test_who_decays_and_who_goes_to_muon",
    ),
    Mutant(
        "Muon does not look a step ahead",
        "optimizers.py",
        'updates.append(p.grad.lerp(momentum, group["momentum"]))', "updates.append(momentum.clone())",
        "test_optimizers.py::test_muon_is_pytorchs_muon",
    ),
    Mutant(
        "tall matrices move no further",
        "optimizers.py", "math.sqrt(max(1, rows / columns))", "1.0",
        "test_optimizers.py::test_muon_is_pytorchs_muon",
    ),
    Mutant(
        "Muon's matrices do not decay",
        "optimizers.py", 'p.mul_(1 - group["lr"] * group["weight_decay"]).add_(', "p.add_(",
        "test_optimizers.py::test_muon_is_pytorchs_muon",
    ),
]  # fmt: skip

TRAIN = [
    Mutant(
        "gradients pile up from step to step",
        "train.py", "    shared.zero_grad(set_to_none=True)\n", "",
        "test_train.py::test_training_is_the_loop_of_the_lessons_with_schedule_and_clipping",
    ),
    Mutant(
        "gradients pile up in the loop of the lessons",
        "train.py", "        optimizer.zero_grad()\n", "",
        "test_train.py::test_a_bigram_reaches_the_optimum_that_counting_gives test_twins.py",
    ),
    Mutant(
        "of two optimizers only one skips a step that overflows in float16",
        "train.py", "    history.scaler.step(together)\n",
        "    for optimizer in history.optimizers:\n        history.scaler.step(optimizer)\n",
        "test_train.py::test_a_step_that_overflows_in_float16_is_skipped_by_both_optimizers",
    ),
    Mutant(
        "a batch of the real size is computed at once on a CPU",
        "train.py", "return min(wished, share)", "return 1",
        "test_train.py::test_on_a_cpu_a_batch_is_cut_so_that_a_layer_fits_into_the_cache",
    ),
    Mutant(
        "the last, shorter part of a batch counts as much as the others",
        "train.py", "loss_of(x, y) * (len(x) / rows)", "loss_of(x, y) / len(batch)",
        "test_train.py::test_a_batch_may_be_cut_into_unequal_parts",
    ),
    Mutant(
        "every sweep saves, also seconds after the last save",
        "train.py", "or late or (due and rested)", "or late or due",
        "test_train.py::test_saves_come_at_sweeps_a_minute_apart_and_when_it_has_been_long",
    ),
    Mutant(
        "a batch in two parts counts twice",
        "train.py", "loss = loss_of(x, y) * (len(x) / rows)", "loss = loss_of(x, y)",
        "test_train.py::test_a_batch_in_parts_is_the_same_batch",
    ),
    Mutant(
        "the processes train on the same rows",
        "train.py", "x, y = x[rank() :: world_size()], y[rank() :: world_size()]",
        "x, y = x[:: world_size()], y[:: world_size()]",
        "test_train.py::test_two_processes_draw_their_own_dropout_and_share_the_batches",
    ),
    Mutant(
        "the schedule is a step ahead",
        "train.py",
        "learning_rate_factor(history.step, config)", "learning_rate_factor(history.step + 1, config)",
        "test_optimizers.py::test_the_schedule_is_what_the_optimizers_are_given",
    ),
    Mutant(
        "gradients are never clipped",
        "train.py", "        nn.utils.clip_grad_norm_(shared.parameters(), config.grad_clip)\n", "",
        "test_train.py::test_gradients_are_clipped_when_asked",
    ),
    Mutant(
        "the best weights change with the model",
        "train.py", "{k: v.cpu().clone() for", "{k: v.cpu() for",
        "test_train.py::test_the_best_weights_are_those_of_the_best_sweep",
    ),
    Mutant(
        "in a sweep the short window at the end counts as much as a batch",
        "train.py", "targets.append(y.numel())", "targets.append(1)",
        "test_train.py::test_the_sweep_meets_every_target_once",
    ),
    Mutant(
        "sweeps with dropout",
        "train.py", "    model.eval()\n", "",
        "test_train.py::test_the_sweep_needs_no_gradient_and_no_chance",
    ),
    Mutant(
        "the training curve is of the whole training text",
        "train.py", "train_ids[: len(val_ids)]", "train_ids",
        "test_train.py::test_training_learns_and_tells_what_it_did",
    ),
    Mutant(
        "after 300 seconds it saves at every step",
        "train.py", "                last_save = time.perf_counter()\n", "",
        "test_train.py::test_saves_come_at_sweeps_a_minute_apart_and_when_it_has_been_long",
    ),
    Mutant(
        "a run that was asked to stop at its last step calls itself unfinished",
        "train.py", "history.stopped = stop and not ended", "history.stopped = stop",
        "test_train.py::test_a_stop_at_the_last_step_is_the_end",
    ),
    Mutant(
        "a loss that is no number goes unnoticed",
        "train.py", "if not all(map(math.isfinite, losses)):", "if False:",
        "test_train.py::test_a_loss_that_is_no_number_names_step_and_learning_rate",
    ),
]  # fmt: skip

CHECKPOINT = [
    Mutant(
        "a loaded model writes with dropout",
        "checkpoint.py",
        "return model.to(device).eval(), tokenizer, about", "return model.to(device), tokenizer, about",
        "test_checkpoint.py::test_what_is_loaded_is_what_was_saved",
    ),
    Mutant(
        "not the best weights are saved, but the last",
        "checkpoint.py", "weights or model.state_dict()", "model.state_dict()",
        "test_checkpoint.py::test_other_weights_can_be_saved_in_place_of_the_present_ones",
    ),
    Mutant(
        "a run goes on with other batches",
        "checkpoint.py", '    history.generator.set_state(part["rng"]["batches"])\n', "",
        "test_resume.py::test_a_stopped_run_goes_on_exactly",
    ),
    Mutant(
        "a run goes on with other dropout",
        "checkpoint.py", 'torch.random.set_rng_state(part["rng"]["dropout"][rank()].clone())', "pass",
        "test_resume.py::test_a_stopped_run_goes_on_exactly",
    ),
    Mutant(
        "every process goes on with the dropout of the first",
        "checkpoint.py", 'part["rng"]["dropout"][rank()].clone()', 'part["rng"]["dropout"][0].clone()',
        "test_runs.py::test_two_processes_go_on_exactly_with_dropout",
    ),
    Mutant(
        "a run goes on with optimizers that remember nothing",
        "checkpoint.py", "        optimizer.load_state_dict(state)\n", "",
        "test_resume.py::test_a_stopped_run_goes_on_exactly",
    ),
    Mutant(
        "a run in float16 goes on with the first scale",
        "checkpoint.py", 'history.scaler.load_state_dict(header["scaler"])', "pass",
        "test_resume.py::test_the_scale_of_float16_goes_on_where_it_was",
    ),
    Mutant(
        "a run forgets its best weights",
        "checkpoint.py",
        'history.best_weights = part["model" if history.best_step == history.step else "best"]',
        "history.best_weights = {}",
        "test_resume.py::test_a_finished_run_is_only_read",
    ),
    Mutant(
        "a run whose best weights are older goes on with its last ones as the best",
        "checkpoint.py", 'part["model" if history.best_step == history.step else "best"]', 'part["model"]',
        "test_resume.py::test_the_best_weights_stand_in_a_checkpoint_once_and_come_back",
    ),
    Mutant(
        "the best weights are written a second time where they are the model's",
        "checkpoint.py", "    if history.best_step != history.step:", "    if history.best_weights:",
        "test_resume.py::test_the_best_weights_stand_in_a_checkpoint_once_and_come_back",
    ),
    Mutant(
        "the room that a run needs is counted without the checkpoint that is being written",
        "program/folder.py", "return 3 * checkpoint + best", "return 2 * checkpoint + best",
        "test_resume.py::test_a_run_takes_the_room_that_it_was_said_to_need",
    ),
    Mutant(
        "a run that would go on, or begin anew, is refused for the room that its own files take",
        "program/folder.py", " + sum(path.stat().st_size for path in own)", "",
        "test_resume.py::test_a_disk_without_room_is_refused_before_anything_is_done",
    ),
    Mutant(
        "loading a model changes what is drawn afterwards",
        "checkpoint.py", "with torch.random.fork_rng(devices=[]):", "if True:",
        "test_checkpoint.py::test_loading_leaves_the_randomness_alone",
    ),
]  # fmt: skip

PRESETS = [
    Mutant(
        "a system that is followed has five layers, not six",
        "presets.py", "SIX_LAYERS = dict(n_layer=6", "SIX_LAYERS = dict(n_layer=5",
        "test_model.py::test_the_number_that_the_systems_claim",
    ),
    Mutant(
        "the course's own preset is not what its recorded run had",
        "presets.py", "batch_size=64, max_steps=800, learning_rate=5e-3", "batch_size=64, max_steps=800",
        "test_runs.py::test_recorded_runs_are_of_the_presets_as_they_are",
    ),
    Mutant(
        "the yardstick's learning rate does not fall",
        "presets.py", "max_steps=2000, learning_rate=1e-3, min_learning_rate_ratio=0.1,",
        "max_steps=2000, learning_rate=1e-3,",
        "test_runs.py::test_recorded_runs_are_of_the_presets_as_they_are",
    ),
]  # fmt: skip

PAGE_08 = [
    Mutant(
        "a count that is out of date wins a merge",
        "tokenizer.py", "if -times == self.count[pair]:", "if times:",
        "test_tokenizer.py::test_merges_are_learned_and_applied_greedily",
    ),
    Mutant(
        "a pair that a merge made rarer is lost",
        "tokenizer.py",
        "            changed.update(pairwise(self.words[w]))\n            self._forget_word(w)",
        "            self._forget_word(w)",
        "test_tokenizer.py::test_merges_are_learned_and_applied_greedily",
    ),
    Mutant(
        "the square layer of GPT-2 is not turned",
        "program/gpt2.py", '"qkv.weight", "proj.weight", "widen.weight"', '"qkv.weight", "widen.weight"',
        "test_gpt2.py::test_a_gpt2_is_loaded_from_its_state_dict_and_from_its_folder",
    ),
    Mutant(
        "a final layer of GPT-2 that is not tied is thrown away",
        "program/gpt2.py", 'weights.setdefault("lm_head.weight", table)',
        'weights.update({"lm_head.weight": table}) or table',
        "test_gpt2.py::test_a_final_layer_of_its_own_is_not_thrown_away",
    ),
    Mutant(
        "half a folder opens as a model",
        "program/gpt2.py", '(folder / "config.json").unlink(missing_ok=True)', "folder.exists()",
        "test_gpt2.py::test_a_disk_that_fills_up_leaves_no_model_that_opens",
    ),
    Mutant(
        "a bias that a model does not have is written as ones",
        "program/gpt2.py", "torch.zeros(len(module.weight))", "torch.ones(len(module.weight))",
        "test_gpt2.py::test_a_model_of_the_course_opens_in_transformers",
    ),
    Mutant(
        "an exported tokenizer hands token types to GPT-2, in transformers 4",
        "program/gpt2.py", '"model_input_names": ["input_ids", "attention_mask"],', "",
        "test_gpt2.py::test_what_is_written_is_plain_json",
    ),
    Mutant(
        "pieces are learned from the validation text too",
        "program/tokens.py", "BytePairTokenizer.train(train_text, max(pieces))",
        "BytePairTokenizer.train(text, max(pieces))",
        "test_tokens.py::test_pieces_are_learned_from_the_training_part_alone",
    ),
    Mutant(
        "equal compute is as many steps",
        "program/tokens.py", "steps * flops_per_token(like) / flops_per_token(config)", "steps",
        "test_tokens.py::test_equal_means_equal",
    ),
    Mutant(
        "every seed is the first",
        "program/tokens.py", "    torch.manual_seed(seed)\n    model = GPT(config)",
        "    torch.manual_seed(1)\n    plan.pop('seed')\n    model = GPT(config)",
        "test_tokens.py::test_a_record_holds_every_point_with_its_seeds",
    ),
    Mutant(
        "the bits of a piece are those of the window before",
        "pictures/notebook_08.py", "ids[:-1].unfold(0, T, 1)[1:]", "ids[:-1].unfold(0, T, 1)[:-1]",
        "test_panels.py::test_every_token_costs_what_the_model_gives_it",
    ),
    Mutant(
        "a row of the benchmark that was measured anew stands there twice",
        "program/bench.py", "in ROWS.keys() - names]", "in ROWS]",
        "test_bench.py::test_only_the_named_rows_are_run",
    ),
]  # fmt: skip

MUTANTS = [
    *SURVIVED, *DEVICE, *DATA, *TOKENIZER, *MODEL, *GENERATE, *OPTIMIZERS, *TRAIN, *CHECKPOINT, *PRESETS,
    *PAGE_08,
]  # fmt: skip

# ---------------------------------------------------------------- the program


def main(arguments=None):
    """Judge the mutants in a copy of the repository; exits with 1 unless each was killed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="judge those with these words in fault, file or tests")
    parser.add_argument("--list", action="store_true", help="say what there is, and judge nothing")
    args = parser.parse_args(arguments)
    chosen = [m for m in MUTANTS if args.only.lower() in f"{m.path} {m.fault} {m.tests}".lower()]
    if not chosen:
        raise SystemExit(f"There is no mutant with the words {args.only!r}: see --list.")
    if args.list:
        print(*(f"{m.path:30} {m.fault}" for m in chosen), sep="\n")
        return
    with tempfile.TemporaryDirectory() as folder:
        copy_to(Path(folder))
        os.environ.update(SETTINGS)
        # What fails without a mutant would count as a kill.
        code, failed, seconds = ask(Path(folder), sorted({t for m in chosen for t in m.tests.split()}))
        if code != 0:
            raise SystemExit(f"Without any mutant the tests fail (pytest ended with {code}): {failed}")
        print(f"without any mutant: the tests that should notice pass, in {seconds:.0f} s", flush=True)
        verdicts = Counter(judge(Path(folder), mutant) for mutant in chosen)
    print(", ".join(f"{number} {verdict}" for verdict, number in verdicts.items()))
    if set(verdicts) != {"killed"}:
        raise SystemExit(1)


def copy_to(folder):
    """Copy what the tests need."""
    for name in COPIED:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.partial")
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        elif (ROOT / name).exists():
            shutil.copy2(ROOT / name, folder / name)


def judge(folder, mutant):
    """Apply a mutant to the copy, ask the tests and undo it: killed, alive, not applied or undecided."""
    path = folder / mutant.path
    source = path.read_text(encoding="utf-8")
    try:
        path.write_text(mutant.applied(source), encoding="utf-8")
    except ValueError as error:
        print(f"NOT APPLIED  {error}", flush=True)
        return "not applied"
    try:
        code, by, seconds = ask(folder, mutant.tests.split())
        survived = code == 0
        if survived:
            code, by, more = ask(folder, OTHERS, 5 * SECONDS)
            seconds += more
    finally:
        path.write_text(source, encoding="utf-8")
    if survived and code == 1 and ask(folder, [by.partition("[")[0]])[0] != 0:
        code = "that fails without the mutant too"
    # Only a test that fails is a kill: not one that cannot be found or read, nor a time that ran out.
    verdict = {0: "alive", 1: "killed"}.get(code, "undecided")
    said = {"alive": "ALIVE", "killed": "killed"}.get(verdict, f"UNDECIDED ({code})")
    print(f"{said:9} {seconds:4.0f} s  {mutant.path}: {mutant.fault}  [{by}]", flush=True)
    return verdict


def ask(folder, tests, limit=SECONDS):
    """Run tests in the copy until one fails: (pytest's exit code, what failed first, seconds)."""
    asked = [test if test.startswith("-") else f"tests/{test}" for test in tests]
    begin, output = time.perf_counter(), folder / "output.txt"
    child = PROCESSES.Process(target=run_pytest, args=(folder, asked, output))
    child.start()
    child.join(limit)
    if child.is_alive():
        child.kill()
        child.join()
        return "time ran out", "", time.perf_counter() - begin
    said = output.read_text(encoding="utf-8", errors="replace")
    failed = re.search(r"^(?:FAILED|ERROR) tests/(.+?)(?: - .*)?$", said, re.MULTILINE)
    words = failed[1] if failed else " ".join(said.split()[-20:]) if child.exitcode else ""
    return child.exitcode, words, time.perf_counter() - begin


def run_pytest(folder, asked, output):
    """What a child does: pytest in the copy, so that nothing of the original is imported."""
    import pytest

    sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() not in (ROOT, ROOT / "tests")]
    os.chdir(folder)
    with open(output, "wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    sys.exit(
        int(
            pytest.main(["-x", "-q", "-rfE", "-p", "no:cacheprovider", "--tb=no", "-m", "not faults", *asked])
        )
    )


if __name__ == "__main__":
    main()
