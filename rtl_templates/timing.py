"""Timing diagram of one sample on the ports, as SVG."""

from __future__ import annotations

from xml.sax.saxutils import escape

from codesign.contract.network import FrozenNetwork

_STEP, _ROW, _LEFT, _HIGH = 44, 34, 130, 18


def timing_diagram(network: FrozenNetwork) -> str:
    """How a sample enters and its output leaves; waits are shown as a gap.

    The clocks between input and output depend on the events; everything else is as drawn.
    """
    if network.coding.is_current:
        words, last = ["source, value", "source, value", "source, value"], [0, 0, 1]
    elif network.timesteps > 1:
        words, last = ["event", "event", "end, t = 0", "...", f"end, t = {network.timesteps - 1}"], [0, 0, 0, 0, 1]
    else:
        words, last = ["event", "event", "end"], [0, 0, 1]
    outputs = [] if network.membrane_readout else ["spike", "spike"]
    outputs += ["value 0", "value 1"][: network.n_outputs]
    if network.n_outputs > 2:
        outputs[-1:] = ["...", f"value {network.n_outputs - 1}"]
    outputs.append("decision")
    inside, outside = len(words), len(outputs)
    idle_in, idle_out = 1 + outside, inside + 1
    n_clocks = 1 + inside + 1 + outside + 1
    rows: list[tuple[str, list[int] | list[str]]] = [
        ("clk", [2] * n_clocks),
        ("s_axis_tvalid", [0] + [1] * inside + [0] * (idle_in + 1)),
        ("s_axis_tready", [1] * n_clocks),
        ("s_axis_tdata", ["", *words, *[""] * (idle_in + 1)]),
        ("s_axis_tlast", [0, *last, *[0] * (idle_in + 1)]),
        ("busy", [0, 0] + [1] * (n_clocks - 3) + [0]),
        ("m_axis_tvalid", [0] * (idle_out + 1) + [1] * outside + [0]),
        ("m_axis_tready", [1] * n_clocks),
        ("m_axis_tdata", [*[""] * (idle_out + 1), *outputs, ""]),
        ("m_axis_tlast", [0] * (idle_out + outside) + [1, 0]),
    ]
    step = _STEP * 2
    width, height = _LEFT + step * n_clocks + 10, _ROW * (len(rows) + 1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for number, (name, wave) in enumerate(rows):
        top = 10 + number * _ROW
        parts.append(f'<text x="{_LEFT - 10}" y="{top + 14}" text-anchor="end">{escape(name)}</text>')
        parts += _bus(wave, top, step) if isinstance(wave[0], str) else _line(wave, top, step)
    gap = _LEFT + step * (1 + inside) + step // 2
    bottom = 10 + len(rows) * _ROW
    parts.append(
        f'<line x1="{gap}" y1="4" x2="{gap}" y2="{bottom}" stroke="#888" stroke-width="4" stroke-dasharray="2 4"/>'
        f'<text x="{gap}" y="{bottom + 12}" text-anchor="middle" fill="#555">clocks depend on the events</text>'
    )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _line(wave: list, top: int, step: int) -> list[str]:
    """A one-bit signal; 2 stands for a clock."""
    points = []
    for position, level in enumerate(wave):
        x = _LEFT + position * step
        if level == 2:
            points += [(x, top + _HIGH), (x, top), (x + step // 2, top), (x + step // 2, top + _HIGH)]
        else:
            y = top if level else top + _HIGH
            points += [(x, y), (x + step, y)]
    text = " ".join(f"{x},{y}" for x, y in points)
    return [f'<polyline points="{text}" fill="none" stroke="#1f4e79" stroke-width="1.5"/>']


def _bus(wave: list, top: int, step: int) -> list[str]:
    """Words; an empty one stands for don't care."""
    parts = []
    for position, label in enumerate(wave):
        x = _LEFT + position * step
        fill = "#eee" if label == "" else "#dce9f5"
        parts.append(
            f'<rect x="{x}" y="{top}" width="{step}" height="{_HIGH}" fill="{fill}" stroke="#1f4e79"/>'
            f'<text x="{x + step // 2}" y="{top + 13}" text-anchor="middle">{escape(label)}</text>'
        )
    return parts
