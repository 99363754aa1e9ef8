"""Speed, memory and precision of the head at a real size (|V| = 151 936, d = 896: Qwen2.5-0.5B's).

    python tests/benchmarks/head_speed.py                       time at 8192 tokens, memory at 1k, 4k and 16k, precision
    python tests/benchmarks/head_speed.py --tokens 2048 --memory-tokens 512 1024 --repeats 3
    python tests/benchmarks/head_speed.py --record results/benchmarks/head.json
    python tests/benchmarks/head_speed.py --profile --tokens 1760 --cases sft row-off      where the time goes, by operation

Every measurement is forward and backward of head and loss in a process of its own, so that peaks do not mix. Time is
against the suite's own fused SFT head (the same products without an old policy); memory is the peak above inputs and the
weight's gradient, beside the naive version that keeps whole logits of both policies. Cases alternate, the fastest of the
repeats counts, and only ratios of one run are compared.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

CASES = {
    "sft": "fused cross-entropy, the yardstick",
    "kld-on": "LCO-KLD on-policy",
    "kld-on-diagnosed": "LCO-KLD on-policy with what the loop logs",
    "kld-off": "LCO-KLD off-policy, exact",
    "kld-off-diagnosed": "LCO-KLD off-policy with what the loop logs",
    "mse-off": "LCO-MSE off-policy, centred",
    "lch-off": "LCO-LCH off-policy, centred",
    "row-on": "LCO-KLD on-policy as a RowLoss",
    "row-off": "LCO-KLD off-policy as a RowLoss",
    "naive": "both policies' whole logits, plain autograd",
}
GOALS = {"kld-on": 1.02, "kld-on-diagnosed": 1.05, "kld-off": 1.5, "row-on": 1.5, "row-off": 2.3}
DIAGNOSTICS = (
    "logprob",
    "entropy",
    "tilt_clamped",
    "target_tv",
    "target_kl",
    "kl_old",
    "kl_target",
    "hidden_gradient_sq",
)


def inputs(tokens: int, width: int, vocabulary: int, dtype: Any, device: str) -> dict[str, Any]:
    import torch

    g = torch.Generator(device).manual_seed(0)

    def draw(*shape: int, scale: float) -> Any:
        return (torch.randn(*shape, generator=g, device=device) * scale).to(dtype)

    hidden, weight = draw(tokens, width, scale=1.0), draw(vocabulary, width, scale=0.1)
    return {
        "hidden": hidden.requires_grad_(),
        "weight": weight.requires_grad_(),
        # Copied and moved in place, so that setting up needs no more memory than the inputs have.
        "old_hidden": hidden.detach().clone().mul_(1.01),
        "old_weight": weight.detach().clone().mul_(0.99),
        "targets": torch.randint(vocabulary, (tokens,), generator=g, device=device),
        "tilt": torch.randn(tokens, generator=g, device=device) / 2,
        "scale": torch.full((tokens,), 1 / tokens, device=device),
    }


def run(case: str, x: dict[str, Any]) -> Any:
    """Forward and backward of one case; returns the loss."""
    from lco.heads import FixedHead, HeadRequest, LinearHead, row_loss, token_loss
    from lco.methods import METHODS

    if case == "naive":
        return naive(x)
    name, where = {"sft": ("sft", "on"), "row-on": ("lco_kld", "on"), "row-off": ("lco_kld", "off")}.get(
        case, (f"lco_{case.split('-')[0]}", case.split("-")[1] if "-" in case else "on")
    )
    method = METHODS[name]
    objective = method.bind()
    old = FixedHead(x["old_hidden"], LinearHead(x["old_weight"])) if where == "off" else None
    head, tilt = LinearHead(x["weight"]), x["tilt"]
    report = DIAGNOSTICS if case.endswith("diagnosed") else ()
    inputs = {"tilt": tilt, "advantage": tilt}
    asked = HeadRequest(x["targets"], objective.statistics, inputs, x["scale"], old=old, report=report)
    if case.startswith("row"):
        import torch

        rows = 8
        mask = torch.ones(rows, len(x["targets"]) // rows, dtype=torch.bool, device=x["targets"].device)
        loss, _ = row_loss(x["hidden"], head, mask, objective.loss, asked)
    else:
        loss, _ = token_loss(x["hidden"], head, objective.loss, asked)
    loss.backward()
    return loss.detach()


def naive(x: dict[str, Any]) -> Any:
    """KL(π* ‖ π) as one would write it first."""
    z = (x["hidden"] @ x["weight"].T).float()
    z_old = (x["old_hidden"] @ x["old_weight"].T).float()
    z_old[range(len(z_old)), x["targets"]] += x["tilt"]
    log_target = z_old.log_softmax(1)
    divergence = (log_target.exp() * (log_target - z.log_softmax(1))).sum(1)
    loss = (divergence * x["scale"]).sum()
    loss.backward()
    return loss.detach()


def peak_memory(device: str) -> int:
    """Bytes: the highest resident (or allocated) memory since `reset_peak`."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated()
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def reset_peak(device: str) -> int:
    """Forgets earlier peaks; returns the memory in use now."""
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")
    return peak_memory(device)


def measure(case: str, tokens: int, options: argparse.Namespace) -> dict[str, float]:
    """One case in this process: seconds and peak bytes above inputs and dW."""
    import torch

    torch.set_num_threads(options.threads)
    dtype = getattr(torch, options.dtype)
    x = inputs(tokens, options.width, options.vocabulary, dtype, options.device)
    gradient_bytes = x["weight"].numel() * 4  # accumulated in float32
    run(
        "sft" if case == "naive" else case,
        {**x, **{k: x[k][:64] for k in ("hidden", "old_hidden", "targets", "tilt", "scale")}},
    )
    x["weight"].grad = x["hidden"].grad = None
    before = reset_peak(options.device)
    begun = time.perf_counter()
    run(case, x)
    if options.device == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - begun
    return {"seconds": seconds, "bytes": peak_memory(options.device) - before - gradient_bytes}


def profile(case: str, options: argparse.Namespace) -> str:
    """The operations of one case by the time they take themselves."""
    import torch
    from torch.profiler import ProfilerActivity

    torch.set_num_threads(options.threads)
    x = inputs(options.tokens, options.width, options.vocabulary, getattr(torch, options.dtype), options.device)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if options.device == "cuda" else [])]
    with torch.profiler.profile(activities=activities) as found:
        run(case, x)
    spent = sorted(found.key_averages(), key=lambda e: -e.self_cpu_time_total - e.self_device_time_total)
    whole = sum(e.self_cpu_time_total + e.self_device_time_total for e in spent)
    lines = [f"{CASES[case]}, {options.tokens} tokens"]
    for e in spent[:12]:
        own = e.self_cpu_time_total + e.self_device_time_total
        lines.append(f"{e.key:28} {own / 1e6:8.2f} s {own / whole:6.1%} {e.count:6} calls")
    return "\n".join(lines)


def in_a_process(case: str, tokens: int, options: argparse.Namespace) -> dict[str, float]:
    command = [
        *(sys.executable, __file__, "--case", case, "--tokens", str(tokens), "--threads", str(options.threads)),
        *("--width", str(options.width), "--vocabulary", str(options.vocabulary), "--dtype", options.dtype),
        *("--device", options.device),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return {"failed": done.returncode, "reason": done.stderr.strip().split("\n")[-1]}  # type: ignore[dict-item]
    found: dict[str, float] = json.loads(done.stdout.strip().split("\n")[-1])
    return found


def precision(options: argparse.Namespace) -> dict[str, float]:
    """Relative error of the bfloat16 gradients (of hidden states and weight) against float64 on the same bfloat16 inputs."""
    import torch

    tokens, vocabulary = 64, options.vocabulary // 8
    narrow = inputs(tokens, options.width, vocabulary, torch.bfloat16, options.device)
    exact = {k: v.detach().double() if v.is_floating_point() else v for k, v in narrow.items()}
    for name in ("hidden", "weight"):
        exact[name].requires_grad_()
    naive(exact)
    found = {}
    for case in ("kld-off", "naive"):
        for name in ("hidden", "weight"):
            narrow[name].grad = None
        run(case, narrow)
        for name in ("hidden", "weight"):
            error = (narrow[name].grad.double() - exact[name].grad).norm() / exact[name].grad.norm()
            found[f"{case} {name}"] = float(error)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=8192, help="a multiple of 8: the row losses see 8 rows")
    parser.add_argument("--memory-tokens", type=int, nargs="*", default=[1024, 4096, 16384])
    parser.add_argument("--naive-tokens", type=int, default=2048, help="the largest count whose naive version fits")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--width", type=int, default=896)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--cases", nargs="+", default=[c for c in CASES if c != "naive"], choices=CASES)
    parser.add_argument("--record", type=Path, help="where the result record goes")
    parser.add_argument("--case", choices=CASES, help="measure this case alone in this process")
    parser.add_argument(
        "--profile", action="store_true", help="print where the cases' time goes in place of measuring them"
    )
    options = parser.parse_args()
    if options.profile:
        for case in options.cases:
            print(profile(case, options), end="\n\n")
        return
    if options.case:
        print(json.dumps(measure(options.case, options.tokens, options)))
        return
    report(options)


def report(options: argparse.Namespace) -> None:
    from lco.disk import write_json
    from lco.heads.linear import CHUNK_ELEMENTS
    from lco.provenance import collect

    best: dict[str, float] = {}
    for _ in range(options.repeats):
        for case in options.cases:
            found = in_a_process(case, options.tokens, options)
            if "failed" in found:
                raise SystemExit(f"{case} at {options.tokens} tokens failed: {found['reason']}")
            seconds = found["seconds"]
            best[case] = min(seconds, best.get(case, seconds))
    chunk = CHUNK_ELEMENTS // options.vocabulary
    print(
        f"{options.tokens} tokens, d = {options.width}, |V| = {options.vocabulary}, {options.dtype}, {options.device}, "
        f"chunks of {chunk}"
    )
    for case, seconds in best.items():
        goal = f"   goal {GOALS[case]:.2f}" if case in GOALS else ""
        print(f"{CASES[case]:48} {seconds:8.1f} s   {seconds / best['sft']:5.2f} × SFT{goal}")
    memory = {n: in_a_process("kld-off", n, options)["bytes"] for n in options.memory_tokens}
    plain = in_a_process("naive", options.naive_tokens, options)
    for n, size in memory.items():
        print(f"LCO-KLD off-policy, {n:6} tokens: {size / 2**20:8.0f} MiB above inputs and dW")
    outcome = {
        "seconds": best,
        "bytes": memory,
        "naive": {"tokens": options.naive_tokens, **plain},
        "precision": precision(options),
    }
    if "bytes" in plain:
        whole = plain["bytes"] / options.naive_tokens * 8192
        print(
            f"naive, {options.naive_tokens} tokens: {plain['bytes'] / 2**20:.0f} MiB; linearly at 8192: {whole / 2**20:.0f} MiB"
        )
        if memory:
            nearest = min(memory, key=lambda n: abs(n - 8192))
            print(f"naive at 8192 tokens / ours at {nearest}: {whole / memory[nearest]:.0f} ×")
    else:
        print(f"naive, {options.naive_tokens} tokens: did not fit ({plain})")
    for name, error in outcome["precision"].items():
        print(f"bfloat16 against float64, gradient of {name}: {error:.1e}")
    if options.record:
        setting = {k: v for k, v in vars(options).items() if k not in {"record", "case"}}
        write_json(
            options.record,
            {
                "schema": "lco-benchmark/1",
                "benchmark": "head",
                "setting": {**setting, "chunk": chunk},
                **outcome,
                "provenance": collect(),
            },
        )


if __name__ == "__main__":
    main()
