"""Decoding beside llama.cpp: tokens/s of prompt and completions, each side in turn, in one sitting.

usage: python decoding.py TRACETUNE MODEL.gguf [--draws 1,8,32] [--precisions f32,bf16,int8] [--formats Q4_1,Q4_0,Q8_0]
                          [--prompt 300] [--new 128] [--rounds 3] [--threads 2]
TRACETUNE is the release binary; MODEL.gguf, whose own format is the first of the formats, is requantized to the others.
needs: llama-cpp-python, built for this processor (CMAKE_ARGS=-DGGML_NATIVE=ON)

All draws share one prompt. llama.cpp decodes it once and copies its cache to a stream a sequence (its fastest way), then takes
one batch of all sequences a step and the likeliest token each, in numpy; tracetune draws at temperature 0.8 with log-probabilities.
Each measurement is a process of its own; printed are medians over the rounds, with the least and the most.
"""

import argparse
import ctypes
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TEXT = (
    "A program reads a list of numbers and walks over it from the first to the last. At each step it compares the number with "
    "the largest one that it has seen so far, and keeps the larger of the two. "
)


def llama():
    import llama_cpp

    @llama_cpp.llama_log_callback
    def quiet(level, text, data):
        pass

    llama.quiet = quiet
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    return llama_cpp


def requantize(L, source, target, name):
    params = L.llama_model_quantize_default_params()
    params.ftype = getattr(L, f"LLAMA_FTYPE_MOSTLY_{name}")
    params.allow_requantize = True
    if L.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params)):
        sys.exit(f"{source} can't be quantized to {name}")


def prompt_of(L, path, tokens):
    """The beginning of a text that has so many tokens."""
    model = L.Llama(str(path), vocab_only=True, verbose=False)
    ids = model.tokenize((TEXT * (tokens // 20 + 1)).encode(), add_bos=False)
    text = model.detokenize(ids[:tokens]).decode()
    return text, model.tokenize(text.encode(), add_bos=False)


def llama_side(path, draws, prompt, new, threads):
    """Seconds for the prompt, and for `new` tokens of each of the draws."""
    import numpy as np

    L = llama()
    params = L.llama_model_default_params()
    params.n_gpu_layers = 0
    model = L.llama_model_load_from_file(path.encode(), params)
    vocabulary = L.llama_vocab_n_tokens(L.llama_model_get_vocab(model))
    params = L.llama_context_default_params()
    params.n_ctx = draws * (len(prompt) + new + 64)
    params.n_batch = params.n_ubatch = 512
    params.n_seq_max, params.kv_unified = draws, False
    params.n_threads = params.n_threads_batch = threads
    context = L.llama_init_from_model(model, params)
    memory = L.llama_get_memory(context)
    first, each = L.llama_batch_init(len(prompt), 0, 1), L.llama_batch_init(draws, 0, 1)
    first.n_tokens, each.n_tokens = len(prompt), draws
    likeliest = lambda row: int(np.argmax(np.ctypeslib.as_array(L.llama_get_logits_ith(context, row), (vocabulary,))))
    seconds = []
    for _ in range(2):  # the first time warms up
        L.llama_memory_clear(memory, True)
        for place, token in enumerate(prompt):
            first.token[place], first.pos[place], first.logits[place] = token, place, place == len(prompt) - 1
            first.n_seq_id[place], first.seq_id[place][0] = 1, 0
        start = time.perf_counter()
        assert L.llama_decode(context, first) == 0
        tokens = [likeliest(len(prompt) - 1)] * draws
        middle = time.perf_counter()
        for row in range(1, draws):
            L.llama_memory_seq_cp(memory, 0, row, -1, -1)
        for step in range(new):
            for row in range(draws):
                each.token[row], each.pos[row], each.logits[row] = tokens[row], len(prompt) + step, 1
                each.n_seq_id[row], each.seq_id[row][0] = 1, row
            assert L.llama_decode(context, each) == 0
            tokens = [likeliest(row) for row in range(draws)]
        seconds.append((middle - start, time.perf_counter() - middle))
    print(json.dumps(dict(prompt=len(prompt) / seconds[1][0], decode=draws * new / seconds[1][1])))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("tracetune")
    parser.add_argument("model")
    parser.add_argument("--draws", default="1,8,32")
    parser.add_argument("--precisions", default="f32,bf16,int8")
    parser.add_argument("--formats", default="Q4_1,Q4_0,Q8_0")
    parser.add_argument("--prompt", type=int, default=300)
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--llama", nargs=3, metavar=("MODEL", "DRAWS", "PROMPT"), help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.llama:
        path, draws, prompt = a.llama
        return llama_side(path, int(draws), json.loads(Path(prompt).read_text()), a.new, a.threads)

    L = llama()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        text, ids = prompt_of(L, a.model, a.prompt)
        (folder / "prompt.txt").write_text(text)
        (folder / "prompt.json").write_text(json.dumps(list(ids)))
        first, *others = a.formats.split(",")
        files = {first: a.model}
        for name in others:
            files[name] = folder / f"{name}.gguf"
            requantize(L, a.model, files[name], name)

        def ours(precision, draws):
            answer = subprocess.run(
                [a.tracetune, "generate", "--json", "--model", a.model, "--prompt-file", folder / "prompt.txt", "-n", str(draws), "--max-tokens",
                 str(a.new), "--temperature", "0.8", "--seed", "1", "--precision", precision, "--threads", str(a.threads)],
                stdout=subprocess.PIPE, check=True,
            )
            summary = json.loads(answer.stdout)["summary"]
            return dict(prompt=summary["prefill_tokens_per_s"], decode=summary["decode_tokens_per_s"])

        def theirs(name, draws):
            command = [sys.executable, __file__, a.tracetune, a.model, "--new", str(a.new), "--threads", str(a.threads), "--llama"]
            answer = subprocess.run([*command, files[name], str(draws), folder / "prompt.json"], stdout=subprocess.PIPE, check=True)
            return json.loads(answer.stdout)

        sides = [("tracetune", ours, name) for name in a.precisions.split(",")] + [("llama.cpp", theirs, name) for name in files]
        draws = [int(count) for count in a.draws.split(",")]
        figures = {}
        for _ in range(a.rounds):
            for count in draws:
                for program, run, name in sides:
                    answer = run(name, count)
                    figures.setdefault((program, name, f"n = {count}"), []).append(answer["decode"])
                    figures.setdefault((program, name, "prompt"), []).append(answer["prompt"])
        columns = ["prompt", *(f"n = {count}" for count in draws)]
        median = lambda program, name, column: statistics.median(figures[program, name, column])
        best = {column: max(median("llama.cpp", name, column) for name in files) for column in columns}
        print("| tokens/s | " + " | ".join(columns) + " |\n| --- |" + " --: |" * len(columns))
        for program, _, name in sides:
            cells = []
            for column in columns:
                values = figures[program, name, column]
                times = f", {statistics.median(values) / best[column]:.2f}×" if program == "tracetune" else ""
                cells.append(f"{statistics.median(values):.0f} [{min(values):.0f}, {max(values):.0f}]{times}")
            print(f"| {program} {name} | " + " | ".join(cells) + " |", flush=True)
        print(f"\n×: times llama.cpp's best format in that column. A prompt of {len(ids)} tokens, {a.new} new ones, {a.threads} threads, {a.rounds} rounds.")


main()
