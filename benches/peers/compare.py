#!/usr/bin/env python3
"""Time tenfold and other libraries in turn on one machine, and write a table.

usage: compare.py --data DIR --python PY --tenfold "COMMAND" --out table.md --json out.json
                  [--cases a,b] [--dtypes f64,f32] [--libraries ...] [--threads 2] [--rounds 3] [--reps 5]

DIR is what generate.py wrote, PY the Python of an environment with requirements.txt installed. To COMMAND
`--data DIR --case CASE --dtype f64|f32 --threads T --reps N --json` is appended; like peers.py it prints one line of JSON
{case, dtype, median_s, min_s, relative_error, reps}, or {"unsupported": true}. It is, say,
`cargo bench --bench solvers --`. Without --tenfold only the others are timed.

For each case and dtype, every round runs each library once, in a process of its own that warms up first: so all see the
same machine. Before each process the script waits until nothing else runs; a run that others disturbed all the same is
left out of the median if there is an undisturbed one. The numbers are medians over the rounds of the medians within.
"""

import argparse
import datetime
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
from pathlib import Path

import peers
import quiet

TENFOLD = "tenfold"
# At least this share of a core (or this many seconds in all) taken by others makes a run count as disturbed.
DISTURBED_SHARE, DISTURBED_SECONDS = 0.05, 0.1


def machine():
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0] if names else model
    return f"{model}, {os.cpu_count()} cores"


def last_json(text):
    """The last line that is a JSON object, or None."""
    for line in reversed(text.splitlines()):
        if line.startswith("{"):
            try:
                return json.loads(line)
            except json.JSONDecodeError:
                continue
    return None


def run_once(command, idle_limit):
    """One process: its JSON record, with whether the machine was its own. A failure gives a record with `error`."""
    environment = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}
    idle = quiet.wait_until_idle(idle_limit)
    watch = quiet.Watch()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    others, wall = watch.others(), watch.wall()
    record = last_json(done.stdout)
    if done.returncode or record is None:
        tail = " / ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
        return {"error": f"exit status {done.returncode}: {tail}"}
    clean = idle and others <= max(DISTURBED_SECONDS, DISTURBED_SHARE * wall)
    return record | {"clean": clean, "others_cpu_s": round(others, 3), "wall_s": round(wall, 3)}


def summary(library, case, dtype, records):
    """What the rounds of one library come to."""
    base = {"library": library, "case": case, "dtype": dtype}
    for kind in ("error", "unsupported"):
        bad = [r[kind] for r in records if kind in r]
        if bad:
            return base | {kind: bad[0]}
    clean = [r for r in records if r["clean"]]
    used = clean or records
    return base | {
        "median_s": statistics.median(r["median_s"] for r in used),
        "min_s": min(r["min_s"] for r in used),
        "relative_error": used[-1].get("relative_error"),
        "reps": sum(r["reps"] for r in used),
        "clean_rounds": len(clean),
        "rounds": records,
    }


def milliseconds(entry):
    if "median_s" not in entry:
        return "failed" if "error" in entry else "-"
    ms = entry["median_s"] * 1e3
    digits = 2 if ms < 10 else 1 if ms < 100 else 0
    return f"{ms:.{digits}f}" + ("" if entry["clean_rounds"] else " *")


def ratio(numerator, ours):
    """How many times as long as ours, over the fastest of the entries that have a time."""
    times = [e["median_s"] for e in numerator if "median_s" in e]
    return f"{min(times) / ours['median_s']:.1f}" if times and "median_s" in ours else "-"


def error_text(entry):
    error = entry.get("relative_error")
    return "-" if error is None else f"{error:.1e}" if error < 1e-4 else f"{error:.8f}"


def row(cells):
    return "| " + " | ".join(cells) + " |"


def table(meta, libraries, groups):
    """The markdown page. `groups` maps (case, dtype) to {library: summary}."""
    others = [name for name in libraries if name != TENFOLD]
    lines = [
        f"Command: `{meta['command']}`",
        "",
        f"Machine: {meta['machine']}. Threads: {meta['threads']}. Date: {meta['date']}. {'; '.join(meta['versions'])}.",
        "",
        f"Median milliseconds (rounds, the libraries in turn: {meta['rounds']}). `-`: the library has no such algorithm or "
        "precision. `*`: other processes ran in every round.",
        "",
    ]
    head = ["case", "dtype", *libraries]
    if TENFOLD in libraries:
        head += [f"{name} / {TENFOLD}" for name in others] + [f"fastest other / {TENFOLD}"]
    lines += [row(head), row(["---"] * 2 + ["---:"] * (len(head) - 2))]
    for (case, dtype), entries in groups.items():
        cells = [case, dtype, *(milliseconds(entries[name]) for name in libraries)]
        if TENFOLD in libraries:
            ours = entries[TENFOLD]
            cells += [ratio([entries[name]], ours) for name in others] + [ratio([entries[name] for name in others], ours)]
        lines.append(row(cells))
    lines += [
        "",
        "Relative error: of a decomposition, of its reconstruction; of a mode product, against numpy in float64.",
        "",
        row(["case", "dtype", *libraries]),
        row(["---"] * 2 + ["---:"] * len(libraries)),
    ]
    for (case, dtype), entries in groups.items():
        lines.append(row([case, dtype, *(error_text(entries[name]) for name in libraries)]))
    return "\n".join(lines) + "\n"


def shown_command(args):
    """The command without the paths of one person's machine."""
    parts = ["python benches/peers/compare.py --data DIR --python PY"]
    if args.tenfold:
        parts.append(f"--tenfold {shlex.quote(args.tenfold)}")
    parts.append(f"--threads {args.threads} --rounds {args.rounds} --reps {args.reps}")
    if args.cases != list(peers.CASES):
        parts.append(f"--cases {','.join(args.cases)}")
    parts.append(f"--dtypes {','.join(args.dtypes)} --libraries {','.join(args.libraries)}")
    return " ".join(parts)


def names(known):
    """An argument that lists some of the known names, separated by commas."""

    def parse(text):
        chosen = [name for name in text.split(",") if name]
        unknown = [name for name in chosen if name not in known]
        if unknown or not chosen:
            raise argparse.ArgumentTypeError(f"{unknown or text!r}: choose from {', '.join(known)}")
        return chosen

    return parse


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--python", required=True, help="the Python with requirements.txt installed")
    parser.add_argument("--tenfold", default="", help="the command that times one case of tenfold")
    parser.add_argument("--cases", type=names(peers.CASES), default=list(peers.CASES))
    parser.add_argument("--dtypes", type=names(("f64", "f32")), default=["f64", "f32"])
    parser.add_argument("--libraries", type=names(peers.LIBRARIES), default=list(peers.LIBRARIES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--reps", type=int, default=5)
    parser.add_argument("--max-seconds", type=float, default=30.0, help="for the timed calls of one process of a peer")
    parser.add_argument("--idle-limit", type=float, default=60.0, help="seconds to wait for an idle machine")
    parser.add_argument("--out", type=Path, required=True, help="the table, in markdown")
    parser.add_argument("--json", type=Path, required=True, help="every record")
    args = parser.parse_args()

    data = args.data.resolve()  # cargo runs a bench in the folder of its package
    libraries = ([TENFOLD] if args.tenfold else []) + args.libraries
    script = str(Path(__file__).with_name("peers.py"))

    def command(library, case, dtype):
        options = ["--data", str(data), "--case", case, "--dtype", dtype]
        options += ["--threads", str(args.threads), "--reps", str(args.reps)]
        if library == TENFOLD:
            return shlex.split(args.tenfold) + options + ["--json"]
        return [args.python, script, "--library", library, "--max-seconds", str(args.max_seconds), *options]

    meta = {
        "command": shown_command(args),
        "machine": machine(),
        "threads": args.threads,
        "date": datetime.date.today().isoformat(),
        "rounds": args.rounds,
    }
    groups, versions, failed = {}, {}, False
    for case in args.cases:
        for dtype in args.dtypes:
            records = {name: [] for name in libraries}
            for number in range(args.rounds):
                for name in libraries:
                    if records[name] and "median_s" not in records[name][-1]:
                        continue  # unsupported or failed before
                    record = run_once(command(name, case, dtype), args.idle_limit)
                    records[name].append(record)
                    if "version" in record:
                        versions |= dict.fromkeys(record.pop("version").split(", "))
                    if "error" in record:
                        failed = True
                    told = f"{record['median_s'] * 1e3:.2f} ms" if "median_s" in record else record.get("error", "unsupported")
                    disturbed = "" if record.get("clean", True) else " (disturbed)"
                    print(f"{case} {dtype} round {number + 1} {name}: {told}{disturbed}", file=sys.stderr, flush=True)
            groups[case, dtype] = {name: summary(name, case, dtype, records[name]) for name in libraries}
            # Written after each case: a run that is stopped keeps what it has.
            meta["versions"] = list(versions)
            results = [entry for entries in groups.values() for entry in entries.values()]
            args.json.write_text(json.dumps({"meta": meta, "results": results}, indent=1) + "\n")
            args.out.write_text(table(meta, libraries, groups))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
