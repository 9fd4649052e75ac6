"""Configuration: every mistake is one line that says what to do, and texts parse back to what they came from."""

import re
import tomllib

import pytest

from codesign.basics.errors import CodesignWarning, InputError, UnsupportedError
from codesign.config import Config, lanes_per_layer, load_config, parse_config
from codesign.config.text import config_template, config_toml
from codesign.records.rundir import RunDirectory


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"trian": {}}, ["unknown key 'trian'", "'train'"]),
        ({"train": {"epoch": 3}}, ["unknown key 'train.epoch'", "'epochs'"]),
        ({"train": {"rewiring": {"target_densty": 0.1}}}, ["'train.rewiring.target_densty'", "'target_density'"]),
        ({"network": {"zzz": 1}}, ["unknown key 'network.zzz'", "known keys", "timesteps"]),
        ({"train": {"epochs": "many"}}, ["train.epochs", "integer", "'many'"]),
        ({"network": {"hidden": [-4]}}, ["network.hidden.0", "greater than or equal to 1", "-4"]),
        ({"network": {"timesteps": 0}}, ["network.timesteps", "greater than or equal to 1"]),
        ({"freeze": {"weight_bits": 9}}, ["freeze.weight_bits", "less than or equal to 8"]),
        ({"data": {"set": "cifar"}}, ["data.set", "'digits'", "'cifar'"]),
        ({"hardware": {"lanes": [1, 2, 3]}}, ["hardware.lanes has 3 entries for 2 layers"]),
        ({"hardware": {"name": "1up"}}, ["hardware.name"]),
        ({"network": {"leak": "none", "leak_shift": 2}}, ["leak_shift belongs to leak = 'shift'"]),
        ({"train": {"rewiring": {"p": 2.0}}}, ["p must be less than q"]),
        (
            {"network": {"layers": [{"kind": "pool"}, {"kind": "conv", "channels": 3, "kernal": 5}]}},
            ["unknown key 'network.layers.1.kernal'; did you mean 'kernel'?"],
        ),
        ({"network": {"layers": [{"kind": "cnv"}]}}, ["network.layers.0", "'cnv'", "'conv'", "'residual'"]),
        ({"network": {"layers": [{"kind": "conv"}]}}, ["network.layers.0.channels", "required"]),
        ({"network": {"layers": [{"kind": "dense", "width": 0}]}}, ["network.layers.0.width", "greater than"]),
        ({"network": {"layers": [], "hidden": [3]}}, ["hidden and layers exclude each other"]),
        ({"network": {"hidden": [3], "recurrent": [True, False]}}, ["recurrent has 2 entries for 1 hidden"]),
        ({"network": {"recurrent_scale": 0.1}}, ["recurrent_scale needs a recurrent layer"]),
        ({"network": {"leak": "none", "learn_leak": "layer"}}, ["learn_leak needs leak"]),
        ({"network": {"leak": "multiply", "learn_leak": "neuron"}}, ["learn_leak = 'neuron' needs leak = 'shift'"]),
        ({"train": {"tet_lambda": 0.1}}, ["tet_lambda belongs to loss = 'tet'"]),
        ({"train": {"activity_weight": 0.1}}, ["activity_weight needs activity_target"]),
        ({"train": {"operations_weight": 0.1}}, ["operations_weight needs operations_target"]),
        ({"train": {"operations_target": 0}}, ["train.operations_target", "greater than 0"]),
        ({"train": {"loss": "count", "label_smoothing": 0.1}}, ["label_smoothing has no meaning"]),
        ({"train": {"loss": "count"}, "network": {"readout": "membrane_sum"}}, ["needs network.readout"]),
        ({"train": {"rewiring": {"start_density": 0.1, "target_density": 0.2}}}, ["target_density must not exceed"]),
        ({"train": {"learning_rate": True}}, ["train: learning_rate should not be true or false"]),
        ({"network": {"hidden": [8, True]}}, ["network: hidden should not be true or false"]),
        (
            {"train": {"rewiring": {"layer_target": {"0": True}}}},
            ["layer_target should not be true or false"],
        ),
        ({"network": {"elsewhere": {"layer": 1}}}, ["unknown key 'network.elsewhere.layer'; did you mean 'layers'"]),
        ({"train": {"seed": 1 << 64}}, ["train.seed", "less than"]),
        ({"train": {"threads": 1 << 40}}, ["train.threads", "less than or equal to 4096"]),
        ([1], ["is no table of keys and values but list"]),
        ({"network": {"hidden": []}, "train": {"activity_target": 0.1}}, ["activity_target draws on", "has none"]),
        ({"network": {"hidden": [], "recurrent": True}}, ["recurrent = true needs hidden layers"]),
        ({"network": {"leak": "multiply", "leak_decay": 0.999}}, ["leak_decay = 0.999 is 256 / 256", "nothing leaks"]),
        ({"network": {"leak": "multiply", "leak_decay": 0.001}}, ["leak_decay = 0.001 is 0 / 256", "nothing is kept"]),
        (
            {"network": {"timesteps": 4}, "data": {"coding": "events", "event_jitter": 4}},
            ["data.event_jitter = 4 would move", "4 timesteps"],
        ),
        (
            {"train": {"rewiring": {"epochs_per_iteration": 2, "rewire_every": 2}}},
            ["rewire_every: an iteration of 2 epochs has no rewiring", "growth = 'none'"],
        ),
        (
            {"train": {"rewiring": {"epochs_per_iteration": 1, "growth": "random"}}},
            ["growth: an iteration of 1 epoch has no rewiring"],
        ),
        (
            {"data": {"coding": "rate", "input_bits": 4, "step_ms": "auto"}},
            ["input_bits belongs to coding = 'current'; step_ms belongs to coding = 'events', not 'rate'", "them out"],
        ),
        (
            {"train": {"rewiring": {"preset": "set", "start_density": 0.5, "stop_at": "target", "gamma": 1}}},
            ["gamma has no meaning with ratio = 'constant'; start_density, stop_at have no meaning", "leave them out"],
        ),
    ],
)
def test_mistakes_are_explained_in_one_line(document, words):
    with pytest.raises(InputError) as caught:
        parse_config(document, "my.toml")
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("my.toml: ")
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("text", "word"),
    [("[data", "not TOML"), ("data = 3", "data"), ("\x00", "not TOML")],
)
def test_files_that_are_no_configuration(tmp_path, text, word):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=word):
        load_config(path)


def test_binary_file_is_refused(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read"):
        load_config(path)


def test_missing_file_names_init(tmp_path):
    with pytest.raises(InputError, match="codesign init"):
        load_config(tmp_path / "none.toml")


def test_overrides_and_seed(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text("[train]\nepochs = 3\n")
    config = load_config(path, ["train.epochs=5", "data.set=mnist", "hardware.lanes=[2, 3]"], seed=7)
    assert (config.train.epochs, config.train.seed, config.data.set) == (5, 7, "mnist")
    assert lanes_per_layer(config.hardware, 2) == [2, 3]


def test_a_seed_for_a_section_that_is_none_is_refused_in_one_line(tmp_path):
    (tmp_path / "c.toml").write_text("train = 5\n")
    with pytest.raises(InputError, match=r"c.toml: train: Input should be"):
        load_config(tmp_path / "c.toml", seed=3)


def test_true_and_false_stay_where_they_are_meant():
    config = parse_config({"train": {"amp": True}, "network": {"hidden": [4, 4], "recurrent": [True, False]}})
    assert (config.train.amp, config.network.recurrent) == (True, [True, False])


def test_keys_that_init_writes_down_are_refused_all_at_once():
    """Whoever chooses another preset then knows what to take out of the file."""
    document = tomllib.loads(config_template())
    document["train"]["rewiring"]["preset"] = "static"
    with pytest.raises(InputError, match="have no meaning with preset = 'static'; leave them out") as caught:
        parse_config(document)
    named = re.search(r"rewiring: (.*) have no", str(caught.value))
    assert named is not None
    for name in named[1].split(", "):
        del document["train"]["rewiring"][name]
    assert parse_config(document).train.rewiring.preset == "static"


@pytest.mark.parametrize("override", ["train.epochs", "=3", "train..epochs=3", "train.epochs.x=3"])
def test_malformed_override(tmp_path, override):
    path = tmp_path / "c.toml"
    path.write_text("[train]\nepochs = 3\n")
    with pytest.raises(InputError, match="--set"):
        load_config(path, [override])


def test_template_explains_every_key_and_parses_back_to_the_defaults():
    text = config_template()
    assert parse_config(tomllib.loads(text)) == Config()

    def walk(model, path):
        for name, field in type(model).model_fields.items():
            value = getattr(model, name)
            if hasattr(value, "model_fields_set"):
                assert f"[{'.'.join([*path, name])}]" in text
                walk(value, [*path, name])
            else:
                assert f"{name} =" in text, field

    walk(Config(), [])


def test_template_keys_that_are_commented_out_are_known():
    for line in config_template().splitlines():
        assert len(line) <= 120
    text = config_template().replace("# leak_decay =", "leak_decay =").replace('leak = "shift"', 'leak = "multiply"')
    with pytest.raises(InputError, match="leak_shift belongs"):
        parse_config(tomllib.loads(text))


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"network": {"leak": "multiply", "leak_decay": 0.9}},
        {"network": {"leak": "none", "hidden": []}, "hardware": {"lanes": [4]}},
        {"network": {"hidden": [8, 9], "recurrent": [True, False], "recurrent_scale": 0.1, "learn_leak": "neuron"}},
        {
            "network": {
                "layers": [
                    {"kind": "conv", "channels": 4, "kernel": 5, "norm": True},
                    {"kind": "pool", "mode": "sum"},
                    {"kind": "residual", "channels": 8, "stride": 2},
                    {"kind": "dense", "width": 9, "recurrent": True},
                ]
            },
            "hardware": {"lanes": [1, 2, 1, 2, 3]},
        },
        {"data": {"test": 0.2, "train_limit": 100}, "train": {"rewiring": {"layer_target": {"0": 0.1}}}},
    ],
)
def test_resolved_text_parses_back(document):
    config = parse_config(document)
    again = parse_config(tomllib.loads(config_toml(config)))
    assert again.model_dump() == config.model_dump()
    assert config_toml(again) == config_toml(config)


def test_resolved_text_of_some_sections():
    assert set(tomllib.loads(config_toml(Config(), {"hardware": (), "verify": ()}))) == {"hardware", "verify"}
    assert tomllib.loads(config_toml(Config(), {"network": ("readout",)})) == {"network": {"readout": "membrane_sum"}}


def test_the_short_form_is_the_same_as_its_layers():
    short = parse_config({"network": {"hidden": [8, 9], "recurrent": [False, True]}}).network
    long = [{"kind": "dense", "width": 8}, {"kind": "dense", "width": 9, "recurrent": True}]
    assert short.layer_configs == parse_config({"network": {"layers": long}}).network.layer_configs
    assert short.n_layers == 3


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("train", "learning_rate"),
        ("train", "weight_decay"),
        ("train", "clip_grad_norm"),
        ("data", "validation"),
        ("data", "step_ms"),
        ("train.rewiring", "q"),
        ("train.rewiring", "gamma"),
    ],
)
@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "1e400"])
def test_numbers_that_are_not_finite_are_refused(tmp_path, section, key, value):
    path = tmp_path / "c.toml"
    path.write_text(f"[{section}]\n{key} = {value}\n")
    with pytest.raises(InputError, match=rf"{section}\.{key}.* finite|{section}\.{key}.* less than") as caught:
        load_config(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"x = " + b"[" * 20_000, "not TOML"),
        (b".".join([b"a"] * 20_000) + b" = 1", "not TOML|unknown key"),
        (b"[train]\nepochs = " + b"1" * 5000, "not TOML"),
        (b"[train]\nepochs = 1\nepochs = 2", "not TOML"),
        (b"\xff", "no UTF-8 at byte 0"),
        (b"#" * (1 << 20) + b"\n", "1048577 bytes, the limit is 1048576"),
        (b"[network]\ntimesteps = 1000000000000", "network.timesteps"),
        (b"[network]\nhidden = [1000000000]", "network.hidden"),
        (b"[[network.layers]]\nkind = 'dense'\nwidth = 1000000000", "width"),
        (b"[network]\nhidden = [" + b"1, " * 300_000 + b"1]", "network.hidden"),
    ],
)
def test_what_is_no_configuration_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "c.toml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        load_config(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "override",
    [
        ".".join(["a"] * 2000) + "=1",
        "train.epochs=" + "1" * 5000,
        "train.epochs=" + "[" * 20_000,
        "train.epochs=1\nx = 2",
        "data.path=caf\udce9",
    ],
)
def test_overrides_that_are_no_values_are_refused_in_one_line(tmp_path, override):
    path = tmp_path / "c.toml"
    path.write_text("")
    with pytest.raises(InputError):
        load_config(path, [override])


@pytest.mark.parametrize(
    ("layers", "is_plain"),
    [
        ([{"kind": "dense", "width": 4}], True),
        ([{"kind": "conv", "channels": 2}, {"kind": "dense", "width": 4}], False),
        ([{"kind": "pool"}], False),
        ([{"kind": "dense", "width": 4, "recurrent": True}], False),
        ([{"kind": "residual", "channels": 2}], False),
    ],
)
def test_networks_say_whether_they_are_plain_chains(layers, is_plain):
    assert parse_config({"network": {"layers": layers}}).network.is_plain_chain is is_plain


def test_machines_that_do_not_know_pictures_are_refused_before_training():
    with pytest.raises(UnsupportedError, match=r"hardware\.loadable = true is built only for chains of single"):
        parse_config({"network": {"layers": [{"kind": "conv", "channels": 2}]}, "hardware": {"loadable": True}})


def test_a_relative_path_starts_where_it_is_written(tmp_path, monkeypatch):
    """In a file at the file's folder, with --set and in Python at the current one; an absolute one is as it is."""
    home, here, project = tmp_path / "home", tmp_path / "here", tmp_path / "project"
    for folder in (home, here, project):
        folder.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)

    def found(text, overrides=()):
        (project / "mine.toml").write_text(f'[data]\nset = "npz"\npath = "{text}"\n')
        return load_config("../project/mine.toml", list(overrides)).data.path

    assert found("data/mine.npz") == str(project / "data/mine.npz")
    assert found("/data/mine.npz") == "/data/mine.npz"
    assert found("~/mine.npz") == str(home / "mine.npz")
    assert found("other.npz", ["data.path=mine.npz"]) == str(here / "mine.npz")
    assert parse_config({"data": {"set": "npz", "path": "mine.npz"}}).data.path == str(here / "mine.npz")
    with pytest.raises(InputError, match=r"data.path: '~nobody-of-that-name/x' is of a user whose home is not known"):
        found("~nobody-of-that-name/x")


def test_a_run_finds_the_data_of_its_configuration_from_anywhere(tmp_path, monkeypatch):
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "mine.toml").write_text('[data]\nset = "npz"\npath = "mine.npz"\n')
    monkeypatch.chdir(tmp_path)
    run = RunDirectory.create("run")
    run.write_config(load_config("project/mine.toml"))
    monkeypatch.chdir("/")
    assert RunDirectory.open(tmp_path / "run").config.data.path == str(tmp_path / "project" / "mine.npz")


def test_a_section_of_an_earlier_version_is_left_out_with_a_warning(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text("[train]\nepochs = 5\n\n[explore]\ndensity = [0.1]\n")
    with pytest.warns(CodesignWarning, match=r"run.toml: \[explore\] is left out: a search has a space file"):
        assert load_config(path).train.epochs == 5


def test_two_seeds_of_the_training_are_refused(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text("[train]\nseed = 3\n")
    assert load_config(path, seed=4).train.seed == 4
    with pytest.raises(InputError, match=r"--seed and --set train\.seed are the same"):
        load_config(path, ["train.seed=5"], seed=4)
