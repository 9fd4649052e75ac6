"""The path of a new user, on data that no default was chosen by: `python -m benchmarks.newcomer`.

Each set is written as an npz of one's own; then nothing but `codesign init` and `codesign run` with the file's name, to
verified Verilog. The accuracy of the simulated hardware is shown beside that of logistic regression on the same
training and test samples. Exits with 1 if a run fails, or if the easy sets stay below 95 %.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.records.rundir import RunDirectory

Arrays = dict[str, npt.NDArray[Any]]
EASY = 0.95


def features(noise: float = 0.25, seed: int = 0) -> Arrays:
    """288 samples of 8 prototypes with 128 values each, plus noise: separable, and easy for a linear model."""
    random = np.random.default_rng(seed)
    labels = np.arange(288) % 8
    prototypes = random.random((8, 128))
    samples = prototypes[labels] + noise * random.standard_normal((288, 128))
    return {"x": np.clip(samples, 0, 1), "y": labels}


def events(seed: int = 0) -> Arrays:
    """288 samples of 128 sources that fire at random over 100 ms, each class at rates of its own."""
    random = np.random.default_rng(seed)
    labels = np.arange(288) % 8
    rates = 3 * random.random((8, 128))
    times, units, offsets = [], [], [0]
    for label in labels:
        fired = np.repeat(np.arange(128), random.poisson(rates[label]))
        units.append(fired)
        times.append(100 * random.random(fired.size))
        offsets.append(offsets[-1] + fired.size)
    return {"times": np.concatenate(times), "units": np.concatenate(units), "offsets": np.array(offsets), "y": labels}


def wine() -> Arrays:
    """178 wines of 3 growers, 13 measurements, each with a unit of its own."""
    from sklearn.datasets import load_wine

    return _scaled(load_wine())


def breast_cancer() -> Arrays:
    """569 biopsies, 30 measurements, benign or malignant."""
    from sklearn.datasets import load_breast_cancer

    return _scaled(load_breast_cancer())


def _scaled(bunch: Any) -> Arrays:
    """Each feature scaled to 0..1 by the training samples, which `split` names."""
    from sklearn.model_selection import train_test_split

    x, y = bunch.data, bunch.target
    _, test = train_test_split(np.arange(y.size), test_size=0.25, stratify=y, random_state=0)
    split = np.zeros(y.size, int)
    split[test] = 2
    low, high = x[split == 0].min(0), x[split == 0].max(0)
    return {"x": np.clip((x - low) / (high - low), 0, 1), "y": y, "split": split}


# Each with the accuracy that it must reach, 0 where that is not known beforehand.
SETS: dict[str, tuple[Callable[[], Arrays], float]] = {
    "features": (features, EASY),
    "events": (events, EASY),
    "wine": (wine, 0.0),
    "breast-cancer": (breast_cancer, 0.0),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/newcomer"), help="folder of the runs")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    lines = ["| set | train, validation, test | epochs, batch | float | hardware | linear | differing | seconds |"]
    lines.append("|---" * 8 + "|")
    failed = False
    for name in options.sets:
        make, least = SETS[name]
        row, accuracy = tried(name, make(), options.output, options.seed)
        lines.append(row)
        failed |= accuracy is None or accuracy < least
    print("\n".join(lines))
    return int(failed)


def tried(name: str, arrays: Arrays, folder: Path, seed: int) -> tuple[str, float | None]:
    """A row of the table, and the accuracy of the simulated hardware on the test samples; None if the run failed."""
    folder.mkdir(parents=True, exist_ok=True)
    data, config, run = folder / f"{name}.npz", folder / f"{name}.toml", folder / name
    np.savez(data, **arrays)  # type: ignore[arg-type]
    start = time.monotonic()
    chosen = ["--set", "data.set=npz", "--set", f"data.path={data}", "--seed", str(seed)]
    for command in (["init", str(config), "--force"], ["run", str(config), "-o", str(run), "--force", *chosen]):
        print("codesign " + " ".join(command), flush=True)
        code = subprocess.run([sys.executable, "-m", "codesign", *command], check=False).returncode
        if code:
            return f"| {name} | exit code {code} |" + " |" * 6, None
    seconds = time.monotonic() - start
    directory = RunDirectory.open(run)
    figures, options = directory.figures, directory.config.train
    sizes = directory.stage("freeze")["samples"]
    cells = (
        name,
        ", ".join(str(sizes[part]) for part in ("train", "validation", "test")),
        f"{options.epochs}, {options.batch_size}",
        f"{figures['accuracy_float']:.1%}",
        f"{figures['accuracy_hardware']:.1%}",
        f"{linear(directory):.1%}",
        str(figures["mismatches"]),
        f"{seconds:.0f}",
    )
    return "| " + " | ".join(cells) + " |", figures["accuracy_hardware"]


def linear(run: RunDirectory) -> float:
    """Test accuracy of logistic regression on the run's own training samples; of events on each source's count."""
    from sklearn.linear_model import LogisticRegression

    from codesign.data import load_dataset
    from codesign.data.samples import Dataset, Split

    def inputs(dataset: Dataset, split: Split) -> npt.NDArray[np.float64]:
        if split.x is not None:
            return np.asarray(split.x, np.float64).reshape(len(split), -1)
        assert split.events is not None
        sample = np.repeat(np.arange(len(split)), np.diff(split.events.offsets))
        counts = np.zeros((len(split), dataset.n_units))
        np.add.at(counts, (sample, split.events.units), 1)
        return counts

    dataset = load_dataset(run.config.data)
    model = LogisticRegression(max_iter=10_000).fit(inputs(dataset, dataset.train), dataset.train.labels)
    return float(np.mean(model.predict(inputs(dataset, dataset.test)) == dataset.test.labels))


if __name__ == "__main__":
    sys.exit(main())
