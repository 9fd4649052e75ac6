"""Golden vectors: input words of a few samples and the output words that must follow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.basics.errors import InputError
from codesign.basics.files import write_json, write_text
from codesign.contract import golden
from codesign.contract.network import FrozenNetwork
from codesign.contract.stimulus import Stimulus
from codesign.machine.layouts import DECISION, END, EVENT, SPIKE, VALUE, Record, input_word, output_word
from codesign.machine.mapping import HardwareMap
from codesign.machine.streams import interleaved

# Input words that the bundle's README explains, beside the last one.
EXPLAINED = 4

Words = npt.NDArray[Any]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ExplainedWord:
    """place : among the sample's words. word : in hexadecimal. last : tlast. text : what it says."""

    place: int
    word: str
    last: bool
    text: str


@dataclass(frozen=True)
class Vectors:
    """input, output : words of all golden vectors. first : words of the first sample, explained."""

    input: int
    output: int
    first: tuple[ExplainedWord, ...]


def encode_words(network: FrozenNetwork, stimulus: Stimulus, sample: int, mapping: HardwareMap) -> tuple[Words, Flags]:
    """Input words of one sample, sources ascending, those of several streams by turns: words (n,) as integers, and
    tlast, bool (n,)."""
    record, address = input_word(network, mapping.input_span), mapping.input_address

    def ordered(sources: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
        return sources[interleaved(mapping.input_stream[sources])]

    if stimulus.values is not None:
        values = stimulus.values[sample].astype(np.int64)
        sources = ordered(np.flatnonzero(values)) if values.any() else np.zeros(1, np.int64)
        words = record.pack({"source": address[sources], "value": values[sources]})
    else:
        parts = []
        for t in range(network.timesteps):
            parts.append(record.pack({"source": address[ordered(stimulus.events(sample, t))], "kind": EVENT}))
            parts.append(record.pack({"source": 0, "kind": END}))
        words = np.concatenate(parts)
    return words, np.arange(words.size) == words.size - 1


def expected_words(
    network: FrozenNetwork, trace: golden.Trace, sample: int, mapping: HardwareMap
) -> tuple[Words, Flags]:
    """Output words of one sample of a machine, spikes of a timestep as the sweep makes them: words (n,), and tlast,
    bool (n,). With early exit the trace is one, and decisions say after which timestep they are."""
    choices, last = mapping.choices, mapping.layers[-1]
    record = output_word(network, mapping.capacity)
    swept = np.lexsort((last.lane, last.slot))
    timesteps, places = np.nonzero(trace.spikes[-1][sample, : int(trace.exits[sample]) + 1][:, swept])
    neurons = swept[places]
    spikes = record.pack({"kind": SPIKE, "timestep": timesteps, "index": neurons, "value": 0})
    classes = np.arange(network.n_outputs)
    values = record.pack({"kind": VALUE, "timestep": 0, "index": classes, "value": trace.values[sample]})
    made = int(trace.exits[sample]) if choices.exits else 0
    decision = record.pack({"kind": DECISION, "timestep": made, "index": trace.decisions[sample], "value": 0})
    words = np.concatenate((spikes[: None if choices.output_spikes else 0], values, decision))
    return words, np.arange(words.size) == words.size - 1


def write_vectors(folder: Path, network: FrozenNetwork, stimulus: Stimulus, mapping: HardwareMap) -> Vectors:
    """Write ``input.mem``, ``output.mem`` (tlast above tdata) and ``samples.json``."""
    if not len(stimulus):
        raise InputError("golden vectors need a sample or more, the stimulus has none")
    trace = golden.run(network, stimulus, early_exit=mapping.choices.early_exit)
    columns = {
        "input": [encode_words(network, stimulus, sample, mapping) for sample in range(len(stimulus))],
        "output": [expected_words(network, trace, sample, mapping) for sample in range(len(stimulus))],
    }
    records = {"input": input_word(network, mapping.input_span), "output": output_word(network, mapping.capacity)}
    for name, samples in columns.items():
        lines: list[str] = []
        for words, last in samples:
            lines += _hex_lines(records[name], words, last)
        write_text(folder / f"{name}.mem", "".join(f"{line}\n" for line in lines))
    write_json(
        folder / "samples.json",
        {
            "samples": [
                {
                    "input_words": int(columns["input"][sample][0].size),
                    "output_words": int(columns["output"][sample][0].size),
                    "label": int(stimulus.labels[sample]),
                    "decision": int(trace.decisions[sample]),
                }
                for sample in range(len(stimulus))
            ]
        },
    )

    counts = {name: sum(int(words.size) for words, _ in samples) for name, samples in columns.items()}
    words, last = columns["input"][0]
    return Vectors(**counts, first=_explained(network, records["input"], words, last))


def _explained(network: FrozenNetwork, record: Record, words: Words, last: Flags) -> tuple[ExplainedWord, ...]:
    """The first words of a sample, and its last one."""
    shown = [*range(min(EXPLAINED, words.size - 1)), words.size - 1]
    coding = network.coding
    low, high = (coding.parameters.get(name) for name in ("low", "high"))
    unpacked = record.unpack(words)
    found = []
    for place in shown:
        fields = {name: int(values[place]) for name, values in unpacked.items()}
        text = ", ".join(f"{name} {value}" for name, value in fields.items())
        if "kind" in fields:
            text = "end of the timestep" if fields["kind"] == END else f"event of source {fields['source']}"
        elif low is not None and high is not None:
            step = (high - low) / coding.largest
            least, most = (min(max(low + (fields["value"] + part) * step, low), high) for part in (-0.5, 0.5))
            text += f": an input of {least:.4g} to {most:.4g}"
        digits = -(-record.stream_width // 4)
        found.append(ExplainedWord(place, f"{int(words[place]):0{digits}x}", bool(last[place]), text))
    return tuple(found)


def _hex_lines(record: Record, words: Words, last: Flags) -> list[str]:
    width = record.stream_width
    digits = -(-(width + 1) // 4)
    return [
        f"{int(word) | (int(flag) << width):0{digits}x}"
        for word, flag in zip(words.tolist(), last.tolist(), strict=True)
    ]
