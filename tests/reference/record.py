"""Record what short training runs compute, to show that a refactoring changes nothing.

  python tests/reference/record.py CHECKOUT --data=hopper-mixed.hdf5 --out=FILE.json

Every run is started through the command line of CHECKOUT, so that one script serves
an old and a new version of the program on one machine. A digest is the SHA-256 of the
final parameters, of the metrics (without those that measure time) and of the episodes.
"""

import argparse
import hashlib
import json
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

HOPPER = {
    "config": "configs/hopper.py:medium",
    "update_steps": 200,
    "warmup_steps": 50,
    "batch_size": 64,
    "eval_every": 100,
    "eval_episodes": 4,
    "log_every": 10,
    "checkpoint_every": 50,
}
QUICKSTART = {
    "config": "configs/quickstart.py",
    "update_steps": 300,
    "eval_every": 150,
    "eval_episodes": 2,
    "log_every": 50,
}
RUNS = {
    "quickstart": QUICKSTART,
    "hopper": HOPPER,
    "hopper_killed_and_resumed": HOPPER,
    "hopper_two_seeds": HOPPER | {"num_seeds": 2},
    "hopper_holdout": HOPPER | {"holdout_fraction": 0.2},
    "hopper_one_step_per_dispatch": HOPPER | {"steps_per_dispatch": 1},
    "hopper_four_heads": HOPPER | {"num_heads": 4},
    # Its metrics at step 0 are an evaluation of the final checkpoint of "hopper".
    "hopper_warm_start": HOPPER | {"update_steps": 10, "init_from": "hopper"},
}
TIMES = ("steps_per_second", "eval/seconds")

# Runs in CHECKOUT: what `Policy` answers to fixed observations.
ACT = """
import sys
import numpy as np
from dt_jax import Policy

policy, rng = Policy.load(sys.argv[1]), np.random.default_rng(0)
policy.reset([3600.0, 1800.0])
actions = [policy.act(rng.standard_normal((2, 11)))]
for _ in range(30):
    actions.append(policy.act(rng.standard_normal((2, 11)), rng.uniform(0, 3, 2)))
np.save(sys.argv[2], np.array(actions))
"""


def command(checkout, name, run, folder, data):
    """Return the command that trains the run called `name`."""
    keys = {key: value for key, value in run.items() if key != "config"}
    if run is not QUICKSTART:
        keys["data_path"] = data
    if "init_from" in keys:
        keys["init_from"] = folder / keys["init_from"]
    return [
        *(sys.executable, "launch.py", f"--config={run['config']}"),
        *(f"--workdir={folder / name}", "--config.device=cpu"),
        *(f"--config.{key}={value}" for key, value in keys.items()),
    ]


def train(checkout, name, run, folder, data):
    """Run to the end; of the one that is to be killed, first to some checkpoints."""
    line = command(checkout, name, run, folder, data)
    if "killed" in name:
        process = subprocess.Popen(line, cwd=checkout, stderr=subprocess.DEVNULL)
        log = folder / name / "metrics.jsonl"
        while not (log.exists() and '"step": 130,' in log.read_text()):
            if process.poll() is not None:
                raise RuntimeError(f"{name} ended before it was killed")
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(line, cwd=checkout, check=True, stdout=subprocess.DEVNULL)


def sha256(parts):
    """Return a hash of byte strings, in order."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def read_params(workdir):
    """Return the last checkpoint's parameters, a dict from path to array."""
    import jax
    import orbax.checkpoint as ocp

    steps = [p for p in (workdir / "checkpoints").iterdir() if p.name.isdecimal()]
    last = max(steps, key=lambda path: int(path.name))
    tree = ocp.StandardCheckpointer().restore(last / "params")
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path): np.asarray(array) for path, array in flat}


def digest(workdir):
    """Return the digests of a run, and enough numbers to compare elsewhere."""
    params = read_params(workdir)
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    rows = [
        {k: v for k, v in json.loads(line).items() if k not in TIMES} for line in lines
    ]
    episodes = list((workdir / "eval").glob("*.npz"))
    arrays = [np.load(p) for p in sorted(episodes, key=lambda p: int(p.stem))]
    return {
        "params_sha256": sha256(
            part
            for path in sorted(params)
            for part in (path.encode(), params[path].tobytes())
        ),
        "metrics_sha256": sha256([json.dumps(rows, sort_keys=True).encode()]),
        "episodes_sha256": sha256(
            file[name].tobytes() for file in arrays for name in sorted(file.files)
        ),
        "params_norm": float(
            np.sqrt(sum(np.sum(np.square(x, dtype=float)) for x in params.values()))
        ),
        "train_loss": [row["train_loss"] for row in rows if "train_loss" in row],
    }


def act(checkout, workdir, folder):
    """Return the hash and the mean of what the trained policy answers."""
    out = folder / "actions.npy"
    subprocess.run([sys.executable, "-c", ACT, workdir, out], cwd=checkout, check=True)
    actions = np.load(out)
    return {
        "actions_sha256": sha256([actions.tobytes()]),
        "action_means": actions.mean(axis=(0, 1)).tolist(),
    }


def processor():
    """Return the name of the CPU and the number of cores in use."""
    info = Path("/proc/cpuinfo")
    names = [x for x in info.read_text().splitlines() if x.startswith("model name")]
    return f"{names[0].partition(':')[2].strip()}, {len(names)} cores"


def record(checkout, data, names=tuple(RUNS)):
    """Return the digests of the runs called `names`."""
    folder = Path(tempfile.mkdtemp(prefix="dt_jax_reference_"))
    digests = {}
    try:
        for name in names:
            began = time.monotonic()
            train(checkout, name, RUNS[name], folder, data)
            digests[name] = digest(folder / name)
            if name == "hopper":
                digests["policy"] = act(checkout, folder / name, folder)
            print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    finally:
        shutil.rmtree(folder)
    return {"machine": machine(), "runs": digests}


def machine():
    """Return what decides the bits beside the program."""
    return {
        "cpu": processor(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("jax", "jaxlib", "flax", "optax")},
    }


def differences(expected, found):
    """Return the names of what differs between two recordings, bit for bit."""
    return [
        f"{name}/{key}"
        for name, digests in found["runs"].items()
        for key, value in digests.items()
        if expected["runs"][name][key] != value
    ]


def main():
    """Record, and compare or write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--compare", type=Path, help="a file written by --out")
    parser.add_argument("--runs", default=",".join(RUNS))
    args = parser.parse_args()
    recorded = record(
        args.checkout.resolve(), args.data.resolve(), args.runs.split(",")
    )
    if args.out:
        args.out.write_text(json.dumps(recorded, indent=1) + "\n")
    if args.compare:
        differ = differences(json.loads(args.compare.read_text()), recorded)
        print("\n".join(differ) or "all digests are equal")
        sys.exit(bool(differ))


if __name__ == "__main__":
    main()
