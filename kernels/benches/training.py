"""Training beside PyTorch: tokens/s and peak memory of the same step, each side in turn, in one sitting.

usage: python training.py BENCH [--cases 1m,5m,135m] [--modes full,lora,bf16,lora-bf16] [--steps 5] [--rounds 3] [--threads 2]
BENCH is the program that `cargo bench -p tracetune-kernels --bench training --no-run` names.
needs: torch transformers, and peft for lora

A step is forward, backward and AdamW (PyTorch: fused) in float32 on random tokens, rows of 256; LoRA is rank 16 on all linear
layers. The modes bf16 and lora-bf16 multiply in bf16 (PyTorch: autocast). Each round runs one process a side, and takes the median of its steps; printed are the medians over the rounds.
"""
import argparse, json, os, statistics, subprocess, sys, time

CASES = {"1m": (1024, 128, 384, 4, 4, 2, 16), "5m": (2048, 256, 704, 6, 8, 4, 16), "20m": (4096, 448, 1216, 8, 7, 7, 16),
         "135m": (49152, 576, 1536, 30, 9, 3, 4)}
ROW = 256
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def torch_side(case, mode, steps, threads):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    v, h, i, layers, heads, kv, rows = CASES[case]
    model = LlamaForCausalLM(LlamaConfig(vocab_size=v, hidden_size=h, intermediate_size=i, num_hidden_layers=layers,
                                         num_attention_heads=heads, num_key_value_heads=kv, tie_word_embeddings=True,
                                         max_position_embeddings=1024))
    if mode.startswith("lora"):
        from peft import LoraConfig, get_peft_model
        model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules=LINEAR))
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True)
    ids = torch.randint(0, v, (rows, ROW))
    seconds = []
    for _ in range(steps + 2):
        start = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mode.endswith("bf16")):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - start)
    peak = next(int(line.split()[1]) // 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(json.dumps(dict(tokens=rows * ROW, seconds=seconds[2:], peak_mib=peak)))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bench")
    parser.add_argument("--cases", default="1m,5m,135m")
    parser.add_argument("--modes", default="full,lora")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--torch", nargs=2, help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.torch:
        return torch_side(*a.torch, a.steps, a.threads)
    env = dict(os.environ, OMP_NUM_THREADS=str(a.threads), HF_HUB_OFFLINE="1")
    print("| case | mode | tracetune tok/s | PyTorch tok/s | ratio | tracetune MiB | PyTorch MiB | ratio |\n" + "| --- " * 8 + "|")
    for case in a.cases.split(","):
        for mode in a.modes.split(","):
            ours = [a.bench, case, mode, str(a.steps), str(a.threads)]
            theirs = [sys.executable, __file__, a.bench, "--steps", str(a.steps), "--threads", str(a.threads), "--torch", case, mode]
            rates, peaks, ratios = ([], []), ([], []), []
            for _ in range(a.rounds):
                for side, command in enumerate([ours, theirs]):
                    out = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
                    row = json.loads(out.stdout.splitlines()[-1])
                    rates[side].append(row["tokens"] / statistics.median(row["seconds"]))
                    peaks[side].append(row["peak_mib"])
                ratios.append(rates[0][-1] / rates[1][-1])
            x, y = map(statistics.median, rates)
            p, q = map(statistics.median, peaks)
            print(f"| {case} | {mode} | {x:,.0f} | {y:,.0f} | {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f}) "
                  f"| {p:,.0f} | {q:,.0f} | {p / q:.2f} |", flush=True)


main()
