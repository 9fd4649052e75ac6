"""The commands and their options. What they do is in :mod:`codesign.cli.actions`, imported when one runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from codesign.basics.errors import InputError
from codesign.cli.console import console
from codesign.cli.kinds import expect
from codesign.cli.options import (
    Compute,
    Debug,
    Force,
    Fpga,
    Json,
    Output,
    Overrides,
    Seed,
    among,
    argument,
    arguments,
    board_names,
    data_set_names,
    example_names,
    target_names,
)

# Characters of a sentence in a list of commands: as many as it has.
WHOLE = 1 << 16


class Commands(TyperGroup):
    """A group whose help tells each command's first sentence whole, and which alone answers with its help."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        if not args and not ctx.resilient_parsing:
            typer.echo(ctx.get_help(), err=True)
            raise typer.Exit(InputError.exit_code)
        return super().parse_args(ctx, args)  # type: ignore[arg-type]

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        found = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        rows = [(name, command.get_short_help_str(WHOLE)) for name, command in found if command and not command.hidden]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


# Help is text and no markup: a name in brackets, such as [budget], stands as it is written. It is quicker too, by the
# import of what reads markup.
app = typer.Typer(
    name="codesign",
    help="From sparse spiking neural network training to verified FPGA hardware.",
    cls=Commands,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(help="Data sets: list them, download one.", cls=Commands, rich_markup_mode=None)
app.add_typer(data_app, name="data")


def _actions(json: bool) -> Any:
    """What commands do with configurations, runs and bundles."""
    console.start(json=json)
    from codesign.cli import actions

    return actions


def _tuning(json: bool) -> Any:
    """What `codesign tune` does."""
    console.start(json=json)
    from codesign.cli import tuning

    return tuning


def _interchange(json: bool) -> Any:
    """What commands do with networks of other frameworks."""
    console.start(json=json)
    from codesign.cli import interchange

    return interchange


def _surroundings(json: bool) -> Any:
    """What commands do that need none of these."""
    console.start(json=json)
    from codesign.cli import surroundings

    return surroundings


def _version(value: bool) -> None:
    if value:
        import codesign

        typer.echo(f"codesign {codesign.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """From sparse spiking neural network training to verified FPGA hardware."""


@app.command(epilog="Example: codesign run examples/digits.toml -o runs/digits")
def run(
    config: Annotated[Path, argument("config", "run", help="configuration, or a run to go on with")],
    output: Output = None,
    overrides: Overrides = None,
    seed: Seed = None,
    device: Compute = "cpu",
    synth: Annotated[bool, typer.Option("--synth", help="also synthesise: area and clock")] = False,
    force: Force = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """The whole path: train, freeze, generate, estimate, budget (if any), verify, report. Goes on where it stopped."""
    _actions(json).run(config, output, overrides, seed, device, synth=synth, force=force)


@app.command(epilog="Example: codesign demo -o runs/demo")
def demo(
    output: Output = Path("runs/demo"),
    seed: Seed = None,
    force: Force = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Handwritten digits, from training to verified Verilog, in a minute or two. Needs no file and no download."""
    from codesign.config.examples import DEMO, example

    _actions(json).run(example(DEMO), output, None, seed, "cpu", synth=False, force=force)


@app.command(epilog="Example: codesign train examples/digits.toml -o runs/digits --set train.epochs=20")
def train(
    config: Annotated[Path, argument("config", "run", help="configuration, or a run to go on with")],
    output: Output = None,
    overrides: Overrides = None,
    seed: Seed = None,
    device: Compute = "cpu",
    force: Force = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Train a sparse network from data. A stopped training goes on from its last checkpoint."""
    _actions(json).stage("train", config, output, overrides, seed, device=device, force=force)


@app.command(epilog="Example: codesign freeze runs/digits --set freeze.weight_bits=4")
def freeze(
    run: Annotated[Path, argument("run", help="run directory with a trained network")],
    overrides: Overrides = None,
    device: Compute = "cpu",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Turn a trained network into integers: network.safetensors."""
    _actions(json).stage("freeze", run, None, overrides, None, device=device)


@app.command(epilog="Example: codesign generate runs/digits/network.safetensors -o runs/wide --set hardware.lanes=4")
def generate(
    network: Annotated[Path, argument("run", "network", help="run directory or frozen network")],
    output: Output = None,
    overrides: Overrides = None,
    device: Fpga = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Generate the Verilog bundle of a frozen network."""
    _actions(json).generate(network, output, overrides, device)


@app.command(epilog="Example: codesign load runs/other/network.safetensors runs/machine/bundle -o other.bin")
def load(
    network: Annotated[Path, argument("run", "network", help="run directory or frozen network")],
    bundle: Annotated[Path, argument("run", "bundle", help="a loadable machine: run directory or bundle")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="load image to write")],
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Compile a network for a loadable machine: the bytes for its port l_axis. Exits with 6 if it does not fit.

    Beside FILE, FILE.json says where the network's neurons are, as the bundle's design.json does for the first network.
    """
    _actions(json).load(network, bundle, output)


@app.command(epilog="Example: codesign verify runs/digits/bundle --network net.safetensors --samples stimulus.npz")
def verify(
    bundle: Annotated[Path, argument("run", "bundle", help="run directory or bundle")],
    network: Annotated[
        Path | None, typer.Option("--network", help="frozen network; default: beside the bundle")
    ] = None,
    samples: Annotated[Path | None, typer.Option("--samples", help="stimulus.npz; default: beside the bundle")] = None,
    mutants: Annotated[bool, typer.Option("--mutants", help="check that injected faults are caught")] = False,
    output: Output = None,
    overrides: Overrides = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Simulate the delivered Verilog and compare it with the frozen network: every spike, every membrane.

    Regenerates nothing. Exits with 4 if one value differs, or if an injected fault is not caught.
    """
    _actions(json).verify(bundle, network, samples, output, overrides, mutants=mutants)


@app.command(epilog="Example: codesign estimate runs/digits --set hardware.lanes=8 --device ecp5-25f")
def estimate(
    network: Annotated[Path, argument("run", "network", help="run directory or frozen network")],
    overrides: Overrides = None,
    device: Fpga = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Cycles, memory and area of a frozen network, without simulation or synthesis.

    With --set those of another machine, which the run does not keep.
    """
    _actions(json).estimate(network, overrides, device)


@app.command(epilog="Example: codesign tune runs/digits --target icebreaker --minimise area --within latency_us=100")
def tune(
    network: Annotated[Path, argument("run", "network", help="run directory or frozen network")],
    target: Annotated[
        str,
        typer.Option(
            "--target",
            metavar="NAME",
            help="board, device or part of `codesign boards`",
            autocompletion=among(target_names),
        ),
    ],
    minimise: Annotated[str, typer.Option("--minimise", help="latency, area or energy")] = "latency",
    within: Annotated[
        list[str] | None,
        typer.Option(
            "--within",
            metavar="KEY=NUMBER",
            help="limits: latency_us, interval_us, cycles, lut, ff, bram, dsp, energy_nj, clock_mhz; with commas",
        ),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            "--allow",
            metavar="CHOICE",
            help="what a host has to agree to: input_checks, counters or output_spikes left out, four input_words a "
            "beat; several with commas",
        ),
    ] = None,
    clock_mhz: Annotated[
        float | None, typer.Option("--clock-mhz", help="for times before a machine is placed; a board has its own")
    ] = None,
    place: Annotated[int, typer.Option("--place", min=0, max=50, help="machines to place and route")] = 3,
    samples: Annotated[
        Path | None, typer.Option("--samples", metavar="FILE", help="encoded samples whose events are counted")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="DIR", help="folder of the results; of a run its tune/TARGET"),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Find the machine of a frozen network: rank all by estimate, place the best, verify the winner."""
    _tuning(json).run(network, target, minimise, within or [], allow or [], clock_mhz, place, samples, output)


@app.command(epilog="Example: codesign budget runs/digits")
def budget(
    run: Annotated[Path, argument("run", help="run directory with a bundle")],
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Place and route the delivered Verilog and compare its use with the run's [budget]. Exits with 6 if it is over."""
    _actions(json).stage("budget", run, None, None, None)


@app.command(epilog="Example: codesign synth runs/digits --set synth.families='[\"ice40\"]'")
def synth(
    bundle: Annotated[Path, argument("run", "bundle", help="run directory or bundle")],
    output: Output = None,
    overrides: Overrides = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Synthesise the delivered Verilog: area of each family, clock of each device."""
    _actions(json).synth(bundle, output, overrides)


@app.command(epilog="Example: codesign build runs/digits --board icebreaker")
def build(
    bundle: Annotated[Path, argument("run", "bundle", help="run directory or bundle")],
    board: Annotated[
        str, typer.Option("--board", metavar="NAME", help="one of `codesign boards`", autocompletion=among(board_names))
    ],
    output: Output = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Make a board's bitstream: the accelerator behind a UART. Exits with 6 if it does not fit."""
    _actions(json).build(bundle, board, output)


@app.command(epilog="Example: codesign explore examples/explore.toml -o runs/explore --workers 2")
def explore(
    space: Annotated[
        Path,
        typer.Argument(metavar="SPACE", callback=expect("config"), help="space file: [axes], [objectives], [budget]"),
    ],
    output: Output = None,
    overrides: Overrides = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="processes of this machine; default: one a core")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option("--scheduler", metavar="tcp://...", help="a Dask scheduler, whose workers do the work")
    ] = None,
    networks: Annotated[
        Path | None, typer.Option("--networks", metavar="DIR", help="folder of trained networks; studies may share it")
    ] = None,
    device: Compute = "cpu",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Search networks and machines for several objectives: a Pareto front and a page to choose on.

    Networks are sampled and trained, machines of each enumerated by estimates. Goes on where it stopped.
    """
    _actions(json).explore(space, output, overrides, workers, scheduler, networks, device)


@app.command(epilog="Example: codesign report runs/digits; side by side: codesign report runs/a runs/b -o both.html")
def report(
    runs: Annotated[list[Path], arguments("run", help="run directory, or several")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="page of several runs; default: compare.html")
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write report.html of a run from what is in its folder, or one page of several runs side by side."""
    _actions(json).report(runs, output)


@app.command(epilog="Example: codesign predict runs/digits mine.npz --json")
def predict(
    run: Annotated[Path, argument("run", help="run directory with a frozen network")],
    data: Annotated[Path, typer.Argument(metavar="DATA", help="npz with x, or with times, units and offsets")],
    allow_dropped: Annotated[
        bool, typer.Option("--allow-dropped", help="go on if half of the events fall outside the timesteps")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Classify your own samples with a run's frozen network, in the hardware's arithmetic."""
    _actions(json).predict(run, data, allow_dropped=allow_dropped)


@app.command(epilog="Example: codesign boards --json")
def boards(json: Json = False, debug: Debug = False) -> None:
    """List boards and FPGA devices with their budgets."""
    _surroundings(json).boards()


@app.command(epilog="Example: codesign doctor")
def doctor(json: Json = False, debug: Debug = False) -> None:
    """Check this machine: interpreter, packages, compilers, tools, disk, data. Exits with 5 if something is missing."""
    _surroundings(json).doctor()


@app.command(epilog="Example: codesign init mine.toml --example mnist")
def init(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="configuration to write")] = Path("codesign.toml"),
    example: Annotated[
        str | None,
        typer.Option(
            "--example",
            metavar="NAME",
            help="start from one that comes with codesign, such as mnist",
            autocompletion=among(example_names),
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace the file")] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a configuration: every key explained, at its default, or that of an example."""
    _surroundings(json).init(path, example, force=force)


@app.command("import", epilog="Example: codesign import net.nir --source snntorch --reset subtract "
             "--readout spike_count --samples data.npz -o runs/net")  # fmt: skip
def import_network(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="NIR file, or lava-dl's .net")],
    source: Annotated[
        str,
        typer.Option(
            "--source", help="snntorch, norse, sinabs, spikingjelly, rockpool, lava or codesign; raw: none of these"
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="run directory that it goes to")],
    dt: Annotated[float | None, typer.Option("--dt", help="timestep, in the unit of the file's time constants")] = None,
    reset: Annotated[
        list[str] | None,
        typer.Option(
            "--reset", metavar="[NODE=]KIND", help="subtract, zero, value or none; repeat it for single nodes"
        ),
    ] = None,
    reset_delay: Annotated[
        bool | None, typer.Option("--reset-delay/--no-reset-delay", help="the reset comes a timestep late (snnTorch)")
    ] = None,
    compare: Annotated[str | None, typer.Option("--compare", help="> or >=, in place of the source's own")] = None,
    readout: Annotated[
        str | None, typer.Option("--readout", help="spike_count, membrane_last, membrane_sum or membrane_max")
    ] = None,
    timesteps: Annotated[int | None, typer.Option("--timesteps", help="of a sample; default: the samples' own")] = None,
    input_bits: Annotated[
        int, typer.Option("--input-bits", min=0, max=8, help="input currents of so many bits, for 0..1; 0: events")
    ] = 0,
    integrator: Annotated[str | None, typer.Option("--integrator", help="euler or exponential (source raw)")] = None,
    norm_input: Annotated[
        bool | None, typer.Option("--norm-input/--no-norm-input", help="neurons scale their input (sinabs)")
    ] = None,
    spikes: Annotated[
        str | None, typer.Option("--spikes", help="one or several a neuron and timestep (sinabs, Rockpool)")
    ] = None,
    weight_bits: Annotated[int | None, typer.Option("--weight-bits", min=2, max=8, help="of all weights")] = None,
    scale: Annotated[
        str | None, typer.Option("--scale", help="steps of the weights: of each neuron, or of each layer")
    ] = None,
    leak_tolerance: Annotated[
        float | None, typer.Option("--leak-tolerance", min=0, help="largest relative change of 1 - decay")
    ] = None,
    drop_refractory: Annotated[
        bool, typer.Option("--drop-refractory", help="leave out refractory periods, and list them")
    ] = False,
    samples: Annotated[
        Path | None,
        typer.Option("--samples", metavar="DATA", help="stimulus, or npz with x (and y): widths, agreement"),
    ] = None,
    max_accuracy_drop: Annotated[
        float | None,
        typer.Option("--max-accuracy-drop", metavar="FRACTION", help="fewest bits by layer that cost no more"),
    ] = None,
    density: Annotated[
        float | None, typer.Option("--density", metavar="FRACTION", help="share of the weights that stays (PQ pruning)")
    ] = None,
    fine_tune: Annotated[
        int | None,
        typer.Option("--fine-tune", metavar="EPOCHS", min=1, help="train so long before the network becomes integers"),
    ] = None,
    training: Annotated[
        Path | None,
        typer.Option("--training", metavar="DATA", help="samples to fine-tune with; else a part of --samples"),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Take a network that another framework trained: float.safetensors, network.safetensors and import.json.

    What the file does not say and no option either is an error that names the option. Exits with 3 for what hardware
    does not have. `codesign generate`, `estimate` and `verify` go on from DIR. docs/import.md has the defaults.
    """
    actions = _interchange(json)
    actions.import_network(
        file,
        source,
        output,
        actions.facts(
            reset or [],
            dt=dt,
            reset_delay=reset_delay,
            compare=compare,
            readout=readout,
            timesteps=timesteps,
            input_bits=input_bits,
            integrator=integrator,
            norm_input=norm_input,
            spikes=spikes,
        ),
        samples,
        weight_bits=weight_bits,
        scale=scale,
        leak_tolerance=leak_tolerance,
        drop_refractory=drop_refractory,
        max_accuracy_drop=max_accuracy_drop,
        density=density,
        fine_tune=fine_tune,
        training=training,
    )


@app.command("export", epilog="Example: codesign export runs/digits -o digits.nir")
def export_network(
    network: Annotated[Path, argument("run", "network", help="run directory, frozen or float network")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="NIR file to write")],
    dt: Annotated[float | None, typer.Option("--dt", help="timestep that its time constants count in")] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a network as a NIR file: for other frameworks what NIR can say, for codesign all of it."""
    _interchange(json).export_network(network, output, dt)


@data_app.command("list", epilog="Example: codesign data list")
def data_list(json: Json = False, debug: Debug = False) -> None:
    """Known data sets and where they were found."""
    _surroundings(json).data_list()


@data_app.command("get", epilog="Example: codesign data get mnist")
def data_get(
    name: Annotated[
        str, typer.Argument(metavar="SET", help="one of `codesign data list`", autocompletion=among(data_set_names))
    ],
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Download a data set into the per-user cache."""
    _surroundings(json).data_get(name)
