"""Matrix products beside PyTorch's: GFLOP/s of Y = X Wᵀ with W packed before (decoding) and as it lies (training), of
dX = dY W and of dW = dYᵀ X, the sides in turn, shape by shape.

usage: python products.py BENCH [--rounds 5] [--threads 2] [--shapes 1024x576x1536,...]     (m x k x n)
BENCH is the program that `cargo bench -p tracetune-kernels --bench speed --no-run` names.
needs: torch

Printed are the medians over the rounds, and the median of the rounds' ratios.
"""
import argparse, os, statistics, subprocess, sys, time

SHAPES = "1024x576x1536,1024x1536x576,1024x576x576,256x576x49152,4096x256x704,4096x704x256,256x256x704,4096x128x384,256x128x384"
PRODUCTS = ["Y, packed", "Y", "dX", "dW"]


def torch_side(threads):
    import torch
    torch.set_num_threads(threads)

    def seconds(call):
        call()
        start = time.perf_counter()
        call()
        calls = max(1, round(0.02 / (time.perf_counter() - start)))
        times = []
        for _ in range(9):
            start = time.perf_counter()
            for _ in range(calls):
                call()
            times.append((time.perf_counter() - start) / calls)
        return statistics.median(times)

    for line in sys.stdin:
        m, k, n = map(int, line.split())
        x, w, y = torch.randn(m, k), torch.randn(n, k), torch.randn(m, n)
        dx, dw = torch.zeros(m, k), torch.zeros(n, k)
        forward = lambda: torch.mm(x, w.t(), out=y)
        calls = [forward, forward, lambda: torch.mm(y, w, out=dx), lambda: dw.addmm_(y.t(), x)]
        print(*(f"{2 * m * k * n / seconds(call) / 1e9:.1f}" for call in calls), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bench")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--shapes", default=SHAPES)
    a = parser.parse_args()
    if a.bench == "torch":
        return torch_side(a.threads)
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    env = dict(os.environ, OMP_NUM_THREADS=str(a.threads))
    sides = [subprocess.Popen([a.bench, "product", str(a.threads)], **pipes),
             subprocess.Popen([sys.executable, __file__, "torch", "--threads", str(a.threads)], env=env, **pipes)]
    print("| m, k, n |" + "".join(f" {product} | PyTorch | ratio |" for product in PRODUCTS))
    print("| --- " * (1 + 3 * len(PRODUCTS)) + "|")
    for shape in a.shapes.split(","):
        rounds = []
        for _ in range(a.rounds):
            answers = []
            for side in sides:
                side.stdin.write(shape.replace("x", " ") + "\n")
                side.stdin.flush()
                answers.append([float(rate) for rate in side.stdout.readline().split()])
            rounds.append(answers)
        cells = []
        for product in range(len(PRODUCTS)):
            rates = [[answers[side][product] for answers in rounds] for side in (0, 1)]
            ratio = statistics.median(ours / theirs for ours, theirs in zip(*rates))
            cells += [f"{statistics.median(rates[0]):.0f}", f"{statistics.median(rates[1]):.0f}", f"{ratio:.2f}"]
        print(f"| {shape.replace('x', ', ')} | {' | '.join(cells)} |", flush=True)


main()
