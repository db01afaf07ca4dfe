"""Run all that a CUDA device is needed for: the tests that wait for one, speeds against plain loops, and checks.

    python benchmarks/cuda.py [--parts PART ...] [--minutes 8] [--quick] [--device cuda] [--output FOLDER]

Needs no data and no network cable. Each part runs in a process of its own, within a time of its own: one that fails, or
takes too long, leaves the others alone. Writes cuda-NAME-OF-THE-CARD.json with every figure, and a table beside it. The
exit status is 0 where all chosen parts ran and all checks held; speeds below a bar are shown, and do not change it.
`--device cpu --quick` tries everything without a card, on a few pictures, into a temporary folder.
"""

import argparse
import datetime
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent

# Of each part, the seconds that it is given at most on a card, and those that it has to be left for it to begin.
SECONDS = {
    "tests": (90, 20),
    "extraction": (150, 60),
    "grid": (120, 50),
    "tuning": (150, 60),
    "halving": (90, 30),
    "memory": (60, 20),
    "round_trips": (60, 20),
    "threads": (60, 20),
}


def main() -> int:
    given = arguments()
    if given.predict:
        from cuda_checks import predict_elsewhere

        predict_elsewhere(given.predict)
        return 0
    if given.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before torch looks: processes of the parts see none either
    elif not on_a_card(given.device):
        print(f"Got --device {given.device}, which torch does not find here. Try it out: --device cpu --quick")
        return 2
    return run_part(given) if given.part else run_all(given)


def run_all(given: argparse.Namespace) -> int:
    """Run each part in a new process, and write the results after each."""
    facts = card(given.device)
    print(", ".join(f"{name} {value}" for name, value in facts.items()), flush=True)
    results: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "quick": given.quick,
        "minutes": given.minutes,
        "machine": facts,
        "parts": {},
    }
    end = time.perf_counter() + 60 * given.minutes
    with tempfile.TemporaryDirectory() as folder:
        for number, name in enumerate(given.parts):
            left = end - time.perf_counter()
            most, least = SECONDS[name]
            if given.quick:
                most, least = left, 1
            else:  # what the parts behind it need is not its own
                left -= sum(SECONDS[later][1] for later in given.parts[number + 1 :])
            print(name, flush=True)
            if left < least:
                part: dict[str, Any] = {"outcome": "left out", "why": f"{max(0, left):.0f} s were left"}
            else:
                part = in_process(given, name, Path(folder), min(left, most))
            print(f"  {part['outcome']}" + (f": {part['why']}" if part["why"] else ""), flush=True)
            results["parts"][name] = {"seconds": 0.0, "records": [], "checks": [], **part}
            write(results, given.output)
    print("\n".join(summary(results)))
    print(f"Written: {given.output}")
    return int(bool(problems(results)))


def in_process(given: argparse.Namespace, name: str, folder: Path, seconds: float) -> dict[str, Any]:
    """Return what a part found in so many seconds, and how it ended."""
    findings = folder / f"{name}.jsonl"
    command = [sys.executable, __file__, "--part", name, "--device", given.device]
    command += ["--folder", str(folder), *(["--quick"] if given.quick else [])]
    start = time.perf_counter()
    outcome, why = "ran", ""
    process = subprocess.Popen(command, start_new_session=True)  # noqa: S603
    try:
        status = process.wait(seconds)
        if status:
            outcome, why = "failed", f"its process ended with status {status}"
    except subprocess.TimeoutExpired:
        outcome, why = "stopped", f"it took longer than {seconds:.0f} s"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # with the processes that it has started
            process.wait()
    lines = findings.read_text().splitlines() if findings.exists() else []
    found = [json.loads(line) for line in lines if line.endswith("}")]  # one that was cut off is left out
    why = next((one["error"] for one in found if "error" in one), why)
    return {
        "outcome": outcome,
        "why": why,
        "seconds": time.perf_counter() - start,
        "records": [one["record"] for one in found if "record" in one],
        "checks": [one["check"] for one in found if "check" in one],
    }


def run_part(given: argparse.Namespace) -> int:
    """Run one part in this process; its findings go into a file of its name."""
    import torch
    from cuda_trial import Trial

    findings = given.folder / f"{given.part}.jsonl"
    trial = Trial(torch.device(given.device), given.quick, given.folder, findings)
    try:
        parts()[given.part](trial)
    except BaseException as error:
        traceback.print_exc()
        last = traceback.format_exception_only(error)[-1].strip().splitlines()[-1]
        with findings.open("a") as file:
            file.write(json.dumps({"error": last}) + "\n")
        return 1
    return 0


def parts() -> dict[str, Any]:
    import cuda_checks
    import cuda_speed

    return {name: getattr(cuda_speed, name, None) or getattr(cuda_checks, name) for name in SECONDS}


def on_a_card(device: str) -> bool:
    import torch

    return torch.cuda.is_available() and (torch.device(device).index or 0) < torch.cuda.device_count()


def card(device: str) -> dict[str, Any]:
    """Say what the figures are measured on and with, the card first."""
    import torch
    from measuring import machine

    facts = machine()
    name = facts.pop("gpu")
    if device == "cpu" or name is None:
        return {"card": None, "driver": None, "cuda": None, **facts}
    asked = torch.cuda.get_device_properties(torch.device(device))
    return {
        "card": asked.name,
        "memory in GiB": round(asked.total_memory / 2**30),
        "capability": f"{asked.major}.{asked.minor}",
        "driver": driver(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        **facts,
    }


def driver() -> str | None:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    return done.stdout.splitlines()[0].strip() if done.returncode == 0 and done.stdout else None


def write(results: dict[str, Any], folder: Path) -> None:
    """Write the figures and the table."""
    folder.mkdir(parents=True, exist_ok=True)
    named = re.sub(r"[^a-z0-9]+", "-", str(results["machine"]["card"] or "cpu").lower()).strip("-")
    (folder / f"cuda-{named}.json").write_text(json.dumps(results, indent=1) + "\n")
    (folder / f"cuda-{named}.md").write_text("\n".join(summary(results)) + "\n")


def summary(results: dict[str, Any]) -> list[str]:
    """Return a table of all figures, the checks, and how each part ended."""
    from reporting import figure, table

    lines = [*table({name: part for name, part in results["parts"].items() if part["records"]}), ""]
    lines += ["| part | check | outcome | seen |", "|---|---|---|---|"]
    for name, part in results["parts"].items():
        for check in part["checks"]:
            outcome = {True: "holds", False: "**does not hold**", None: "not checked here"}[check["held"]]
            lines.append(f"| {name} | {check['name']} | {outcome} | {check['seen']} |")
    lines.append("")
    for name, part in results["parts"].items():
        below = [
            f"{record['name']} ({figure(record['times as fast'], '')}, expected {record['bar']})"
            for record in part["records"]
            if not record.get("bar is met", True)
        ]
        lines += [f"- Below the bar: {one}." for one in below]
        if part["outcome"] != "ran":
            lines.append(f"- {name} {part['outcome']}: {part['why'].rstrip('.')}.")
    quick = " A quick trial on few pictures, not a measurement." if results["quick"] else ""
    facts = ", ".join(f"{name} {value}" for name, value in results["machine"].items() if value is not None)
    return [*lines, f"- {results['date']}: {facts}.{quick}"]


def problems(results: dict[str, Any]) -> list[str]:
    """Return the parts that did not run to their end, and the checks that did not hold."""
    ended = [name for name, part in results["parts"].items() if part["outcome"] != "ran"]
    checks = [check["name"] for part in results["parts"].values() for check in part["checks"] if check["held"] is False]
    return ended + checks


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--parts", nargs="+", choices=SECONDS, default=list(SECONDS), metavar="PART")
    parser.add_argument("--minutes", type=float, default=8, help="parts that no longer fit are left out")
    parser.add_argument("--quick", action="store_true", help="few pictures, small networks, once")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1 or cpu")
    parser.add_argument("--output", type=Path, help="folder (default: results beside this file)")
    for name in ("--part", "--folder", "--predict"):  # of the processes that this one starts
        parser.add_argument(name, type=Path if name != "--part" else str, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.output is None:
        given.output = Path(tempfile.mkdtemp()) if given.quick else HERE / "results"
    return given


if __name__ == "__main__":
    sys.exit(main())
