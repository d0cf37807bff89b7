"""What a configuration may say, and the one line that answers when it says something else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from fasttrain.config import AdamW, Config, Crop, Cutout, Duration, Flip, load
from fasttrain.config.augment import augmentation_names
from fasttrain.errors import UserError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "recipe.yaml"


def read(file: Path, text: str, *overrides: str) -> Config:
    file.write_text(text)
    return load(file, overrides)


def refusal(file: Path, text: str, *overrides: str) -> str:
    """The one line with which a configuration is refused."""
    with pytest.raises(UserError) as caught:
        read(file, text, *overrides)
    message = str(caught.value)
    assert message == message.strip()
    assert len(message.splitlines()) == 1
    assert caught.value.exit_code == 2
    return message


# Defaults, and the way back


def test_no_settings_give_every_default(file: Path) -> None:
    assert read(file, "{}") == load(None) == Config()


@pytest.mark.parametrize("text", ["", " \n", "# nothing but a comment\n", "---\n", "null"])
def test_an_empty_file_is_refused(file: Path, text: str) -> None:
    message = refusal(file, text, "train.epochs=3")
    assert message == f"{file}: is empty; write {{}} into it if all defaults are meant"


def test_the_defaults_written_out_are_read_as_the_defaults(file: Path) -> None:
    assert read(file, Config().to_yaml()) == Config()


def test_every_setting_survives_the_way_to_yaml_and_back(file: Path) -> None:
    text = """
name: all.of-it_1
seed: 9223372036854775807
data:
  dataset: folder
  path: /some/where
  size: [28, 32]
  test_share: 0.25
  split_seed: 3
  loader: reference
  batch_size: 96
  validation: 0
  workers: 7
  augment: [{name: crop, padding: 3, mode: reflect}, {name: flip, mode: alternating}, cutout]
model: {widths: [8, 16], norm: batch}
optim: {lr: 0.1, momentum: 0.95, nesterov: true, weight_decay: 5.0e-4, decay_biases: true}
schedule: {name: cosine, warmup: 2.5epochs, t_max: 40%, floor: 0.01}
train:
  epochs: 3
  device: cpu
  precision: fp32
  compile: false
  cuda_graphs: false
  channels_last: false
  deterministic: true
  accumulate: 3
  clip_norm: 1.5
  label_smoothing: 0.2
  ema: {decay: 0.99, warmup: false}
  resize: [{scale: 0.75, until: 50%}]
  tta: flip
  log_every: 1234567steps
  evaluate_every: 12.5%
  exchange: bf16
  processes: 2
  on_divergence: rollback
  rollbacks: 5
  watchdog: 1.5min
checkpoint: {every: 0.5min, keep: 4, best: false}
track: {wandb: offline, project: mine, report: false, metrics_port: 9400}
"""
    config = read(file, text)
    defaults = Config().model_dump()
    for section, values in config.model_dump().items():
        if not isinstance(values, dict):
            assert values != defaults[section]
            continue
        for key, value in values.items():
            if key not in ("family", "name") or section == "schedule":
                assert value != defaults[section].get(key), (
                    f"{section}.{key} was left at its default"
                )
    assert read(file, config.to_yaml()) == config


def test_every_default_is_written_out() -> None:
    written = Config().to_yaml()
    for section in Config.model_fields:
        assert f"{section}:" in written
    assert "log_every: 50steps" in written
    assert "every: 1epochs" in written


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Config().train.epochs = 3  # type: ignore[misc]


def test_the_recipes_of_the_repository_are_valid(configs: Path) -> None:
    recipes = sorted(configs.glob("*.yaml"))
    assert recipes
    for recipe in recipes:
        load(recipe)


# Numbers


@pytest.mark.parametrize("text", ["1e-3", "1.0e-3", "0.001", "1.E-3", "'1e-3'"])
def test_every_way_to_write_a_number_is_read_as_one(file: Path, text: str) -> None:
    assert read(file, f"optim: {{lr: {text}}}").optim.lr == 0.001
    assert read(file, "{}", f"optim.lr={text}").optim.lr == 0.001


def test_a_seed_is_a_number(file: Path) -> None:
    seed = read(file, "seed: 17").seed
    assert seed == 17
    assert type(seed) is int


# Keys


@pytest.mark.parametrize(
    ("text", "key", "nearest"),
    [
        ("trian: {epochs: 3}", "trian", "train"),
        ("train: {epoch: 3}", "train.epoch", "epochs"),
        ("checkpoint: {evry: 3epochs}", "checkpoint.evry", "every"),
        ("model: {width: [8]}", "model.width", "widths"),
        ("data: {augment: [{name: flip, moed: random}]}", "data.augment.0.flip.moed", "mode"),
        ("data: {augment: [crop, {name: cutout, sise: 3}]}", "data.augment.1.cutout.sise", "size"),
        ("optim: {momentun: 0.5}", "optim.momentun", "momentum"),
        ("optim: {name: adamw, bettas: [0.9, 0.99]}", "optim.bettas", "betas"),
        ("optim: {name: muon, rest: {nestero: true}}", "optim.rest.nestero", "nesterov"),
        ("optim: {name: muon, rest: {name: adamw, ep: 1}}", "optim.rest.ep", "eps"),
        ("schedule: {name: step, evry: 3epochs, every: 1epochs}", "schedule.evry", "every"),
        ("schedule: {name: cosine, tmax: 3epochs}", "schedule.tmax", "t_max"),
        ("train: {ema: {deca: 0.9}}", "train.ema.deca", "decay"),
    ],
)
def test_an_unknown_key_is_named_with_its_file_and_the_nearest_valid_one(
    file: Path, text: str, key: str, nearest: str
) -> None:
    message = refusal(file, text)
    assert message.startswith(f"{file}: unknown key '{key}'; did you mean '{nearest}'?")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("optim: {name: adamw, momentum: 0.9}", "'optim.momentum' (known here: name, lr, betas,"),
        ("optim: {betas: [0.9, 0.99]}", "'optim.betas' (known here: name, lr, momentum,"),
        ("optim: {name: muon, rest: {scale: rms}}", "'optim.rest.scale' (known here: name, lr,"),
        ("schedule: {floor: 0.1}", "'schedule.floor' (known here: name, warmup)"),
        ("schedule: {name: linear, gamma: 0.1}", "'schedule.gamma' (known here: name, warmup,"),
    ],
)
def test_a_key_of_another_optimiser_or_schedule_is_refused(
    file: Path, text: str, line: str
) -> None:
    assert refusal(file, text).startswith(f"{file}: unknown key {line}")


@pytest.mark.parametrize(
    ("text", "key", "found", "hint"),
    [
        ("optim: {name: adam}", "optim.name", "adam", "; did you mean 'adamw'?"),
        ("optim: {name: muon, rest: {name: muon}}", "optim.rest.name", "muon", ""),
        ("optim: {name: 5}", "optim.name", "5", ""),
        ("schedule: {name: onecycle}", "schedule.name", "onecycle", "; did you mean 'one_cycle'?"),
    ],
)
def test_an_unknown_optimiser_or_schedule_is_answered_with_those_there_are(
    file: Path, text: str, key: str, found: str, hint: str
) -> None:
    message = refusal(file, text)
    assert message.startswith(f"{file}: {key}: input should be one of '")
    assert message.endswith(f"(it is {found!r}){hint}")


def test_an_override_can_choose_another_optimiser(file: Path) -> None:
    assert read(file, "seed: 1", "optim.name=adamw", "optim.lr=0.1").optim == AdamW(lr=0.1)
    message = refusal(file, "seed: 1", "optim.name=adamw", "optim.momentum=0.1")
    assert message.startswith("the argument 'optim.momentum=0.1': unknown key 'optim.momentum'")


@pytest.mark.parametrize(
    "text",
    [
        "optim: {name: adamw, lr: 0.1, betas: [0.8, 0.9], eps: 1.0e-6, weight_decay: 0.2}",
        "optim: {name: muon, scale: rms, fix_norm: true, rest: {name: adamw, eps: 1.0e-6}}",
        "schedule: {name: step, every: 3epochs, gamma: 0.5, warmup: 10steps}",
        "schedule: {name: one_cycle, warmup: 20%, curve: linear, start: 0.2, floor: 0.01}",
        "schedule: {name: linear, warmup: 1epochs, floor: 0.1}",
        "train: {ema: {decay: 0.9, warmup: false}}",
    ],
)
def test_every_optimiser_and_schedule_survives_the_way_to_yaml_and_back(
    file: Path, text: str
) -> None:
    config = read(file, text)
    assert config != Config()
    assert read(file, config.to_yaml()) == config


def test_a_key_like_no_other_is_answered_with_all_that_are_valid(file: Path) -> None:
    message = refusal(file, "optim: {xyzzy: 3}")
    assert "did you mean" not in message
    assert "unknown key 'optim.xyzzy' (known here: name, lr, momentum, nesterov" in message


def test_every_wrong_thing_is_named_on_the_same_line(file: Path) -> None:
    message = refusal(file, "seed: -1\ntrain: {epoch: 3, precision: fp17}\nmdoel: {}")
    for word in ("seed", "train.epoch'", "train.precision", "mdoel"):
        assert word in message


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ("seed: 1\nname: a\nseed: 2\n", 3, "seed"),
        ("optim:\n  lr: 0.1\n  lr: 0.2\n", 3, "lr"),
        ("optim: {lr: 0.1, 'lr': 0.2}\n", 1, "lr"),
        ("data:\n  augment:\n  - name: crop\n    padding: 2\n    padding: 4\n", 5, "padding"),
        ("train: {epochs: 1}\nmodel: {}\ntrain: {epochs: 2}\n", 3, "train"),
    ],
)
def test_a_key_that_stands_twice_is_refused(file: Path, text: str, line: int, key: str) -> None:
    message = refusal(file, text)
    assert message == f"{file} (line {line}): not valid YAML: the key '{key}' stands twice"


def test_a_key_may_stand_again_beside_a_merged_one(file: Path) -> None:
    text = "data: {augment: [{<<: {name: crop, padding: 2, mode: reflect}, padding: 3}]}"
    assert read(file, text).data.augment == (Crop(padding=3, mode="reflect"),)


def test_a_key_that_is_no_word_is_refused(file: Path) -> None:
    assert "keys should be strings" in refusal(file, "1: 2")
    assert "unhashable" in refusal(file, "? [1]\n: 2")
    assert "unknown key ''" in refusal(file, "'': 2")


# Values


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("name: 5", "name"),
        ("name: null", "name"),
        ("name: two words", "name"),
        ('name: "up/../and/away"', "name"),
        ('name: "line\\n"', "name"),
        ("name: ''", "name"),
        (f"name: {'a' * 81}", "name"),
        ("seed: many", "seed"),
        ("seed: 1.5", "seed"),
        ("seed: -1", "seed"),
        ("seed: 9223372036854775808", "seed"),
        ("seed: true", "seed"),
        ("data: {dataset: imagenet}", "data.dataset"),
        ("data: {path: 5}", "data.path"),
        ("data: {loader: fast}", "data.loader"),
        ("data: {batch_size: 0}", "data.batch_size"),
        ("data: {batch_size: 1.5}", "data.batch_size"),
        ("data: {validation: -1}", "data.validation"),
        ("data: {workers: 257}", "data.workers"),
        ("data: {augment: [3]}", "data.augment.0"),
        ("data: {augment: [{size: 3}]}", "data.augment"),
        ("data: {augment: [{name: crop, padding: 0}]}", "data.augment.0.crop.padding"),
        ("data: {augment: [{name: crop, padding: 17}]}", "data.augment.0.crop.padding"),
        ("data: {augment: [{name: flip, mode: upside}]}", "data.augment.0.flip.mode"),
        ("data: {augment: [{name: mixup, alpha: 0.0001}]}", "data.augment.0.mixup.alpha"),
        ("data: {augment: [{name: cutmix, alpha: 0.0001}]}", "data.augment.0.cutmix.alpha"),
        ("data: {augment: [flip, {name: cutout, size: 65}]}", "data.augment.1.cutout.size"),
        ("train: {epochs: 9223372036854775808}", "train.epochs"),
        ("model: {family: dog}", "model.family"),
        ("model: {widths: []}", "model.widths"),
        ("model: {widths: 64}", "model.widths"),
        ("model: {widths: [8, 0]}", "model.widths.1"),
        ("model: {widths: [8, wide]}", "model.widths.1"),
        ("model: {widths: [true]}", "model.widths.0"),
        ("model: {norm: layer}", "model.norm"),
        ("optim: {lr: 0}", "optim.lr"),
        ("optim: {lr: fast}", "optim.lr"),
        ("optim: {lr: .inf}", "optim.lr"),
        ("optim: {lr: .nan}", "optim.lr"),
        ("optim: {lr: 1e400}", "optim.lr"),
        ("optim: {lr: 1.0e+39}", "optim.lr"),
        ("optim: {lr: true}", "optim.lr"),
        ("optim: {lr: [0.1]}", "optim.lr"),
        ("optim: {lr: null}", "optim.lr"),
        ("optim: {momentum: 1}", "optim.momentum"),
        ("optim: {weight_decay: -0.1}", "optim.weight_decay"),
        ("optim: {weight_decay: .inf}", "optim.weight_decay"),
        ("optim: {nesterov: perhaps}", "optim.nesterov"),
        ("optim: {name: adamw, betas: [0.9]}", "optim.betas.1"),
        ("optim: {name: adamw, betas: [0.9, 1]}", "optim.betas.1"),
        ("optim: {name: adamw, eps: 0}", "optim.eps"),
        ("optim: {name: muon, iterations: 0}", "optim.iterations"),
        ("optim: {name: muon, scale: big}", "optim.scale"),
        ("optim: {name: muon, rest: {lr: 0}}", "optim.rest.lr"),
        ("optim: {name: muon, rest: 5}", "optim.rest"),
        ("optim: 5", "optim"),
        ("schedule: cosine", "schedule"),
        ("schedule: {name: step}", "schedule.every"),
        ("schedule: {name: step, every: 0epochs}", "schedule.every"),
        ("schedule: {name: step, every: 1epochs, gamma: 1.1}", "schedule.gamma"),
        ("schedule: {name: cosine, floor: 1}", "schedule.floor"),
        ("schedule: {name: cosine, t_max: 0%}", "schedule.t_max"),
        ("schedule: {name: cosine, t_max: 3min}", "schedule.t_max"),
        ("schedule: {name: one_cycle, start: 0}", "schedule.start"),
        ("schedule: {name: one_cycle, curve: round}", "schedule.curve"),
        ("train: {accumulate: 0}", "train.accumulate"),
        ("train: {accumulate: all}", "train.accumulate"),
        ("train: {accumulate: yes}", "train.accumulate"),
        ("train: {accumulate: -1}", "train.accumulate"),
        ("model: {family: whitened_cnn, ghost_batch: 25}", "model.ghost_batch"),
        ("train: {clip_norm: 0}", "train.clip_norm"),
        ("train: {ema: 0.9}", "train.ema"),
        ("train: {ema: {decay: 1}}", "train.ema.decay"),
        ("optim: {nesterov: true, momentum: 0}", "optim"),
        ("schedule: {name: zigzag}", "schedule.name"),
        ("train: {epochs: 0}", "train.epochs"),
        ("train: {epochs: yes}", "train.epochs"),
        ("train: {device: tpu}", "train.device"),
        ("train: {precision: fp16}", "train.precision"),
        ("train: {compile: maybe}", "train.compile"),
        ("train: {label_smoothing: 1}", "train.label_smoothing"),
        ("train: {processes: 0}", "train.processes"),
        ("train: {processes: true}", "train.processes"),
        ("checkpoint: {keep: 0}", "checkpoint.keep"),
        ("track: {wandb: sometimes}", "track.wandb"),
        ("track: {project: ''}", "track.project"),
        ("track: {metrics_port: 65536}", "track.metrics_port"),
        ("data: 5", "data"),
        ("data: []", "data"),
        ("optim:", "optim"),
    ],
)
def test_a_value_of_the_wrong_type_or_range_is_named(file: Path, text: str, key: str) -> None:
    assert refusal(file, text).startswith(f"{file}: {key}: ")


def test_the_value_that_is_wrong_is_shown(file: Path) -> None:
    assert "(it is 'fp17')" in refusal(file, "train: {precision: fp17}")
    assert "(it is 'a\\nb')" in refusal(file, 'train: {epochs: "a\\nb"}')


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("accumulate: 0", "'auto', or greater than or equal to 1 (it is 0)"),
        ("accumulate: all", "'auto', or a valid integer, unable to parse string as an integer (it"),
        ("compile: maybe", "'auto', or true or false (it is 'maybe')"),
        ("compile: aut", "'auto', or true or false (it is 'aut')"),
    ],
)
def test_both_forms_of_a_setting_are_named_as_one_mistake(
    file: Path, text: str, complaint: str
) -> None:
    message = refusal(file, f"train: {{{text}}}")
    assert message.startswith(f"{file}: train.{text.split(':')[0]}: input should be {complaint}")
    assert message.count("input should be") == 1


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("name: a b", "name: letters, digits, '.', '_' and '-' may stand here, a letter or digit"),
        ("model: {widths: []}", "model.widths: the list is too short, it needs 1 or more (it is"),
        ("model: {widths: 64}", "model.widths: input should be a list (it is 64)"),
        (
            f"train: {{resize: [{', '.join(['{scale: 0.5, until: 1steps}'] * 7)}]}}",
            "train.resize: the list is too long, it takes 6 or fewer",
        ),
        ("optim: {nesterov: 2}", "optim.nesterov: input should be true or false (it is 2)"),
        ("optim: {nesterov: []}", "optim.nesterov: input should be true or false (it is [])"),
    ],
)
def test_what_may_stand_there_is_said_in_plain_words(file: Path, text: str, complaint: str) -> None:
    assert refusal(file, text).startswith(f"{file}: {complaint}")


# Augmentations


def test_augmentations_have_a_short_and_a_long_form(file: Path) -> None:
    text = "data: {augment: [crop, {name: flip, mode: alternating}, cutout]}"
    assert read(file, text).data.augment == (Crop(), Flip(mode="alternating"), Cutout())


@pytest.mark.parametrize("entry", ["flipp", "{name: flipp}"])
def test_an_unknown_augmentation_is_answered_with_the_nearest(file: Path, entry: str) -> None:
    message = refusal(file, f"data: {{augment: [{entry}]}}")
    assert (
        f"{file}: data.augment: no augmentation is named 'flipp'; did you mean 'flip'?" in message
    )


@pytest.mark.parametrize("names", ["flip, crop", "cutout, flip", "crop, crop", "crop, flip, flip"])
def test_augmentations_stand_once_and_in_the_order_they_are_done(file: Path, names: str) -> None:
    message = refusal(file, f"data: {{augment: [{names}]}}")
    assert f"each augmentation may stand once, in the order {augmentation_names()}" in message
    assert augmentation_names().index("crop") < augmentation_names().index("flip")


# Durations


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("20steps", 20, "steps"),
        ("1step", 1, "steps"),
        ("2 epochs", 2, "epochs"),
        ("0.5epoch", 0.5, "epochs"),
        ("10%", 10, "%"),
        (" 5min ", 5, "min"),
        ("0steps", 0, "steps"),
    ],
)
def test_a_duration_is_a_number_and_a_unit(file: Path, text: str, value: float, unit: str) -> None:
    every = read(file, f"checkpoint: {{every: '{text}'}}").checkpoint.every
    assert every is not None
    assert (every.value, every.unit) == (value, unit)


@pytest.mark.parametrize("text", ["1000000steps", "1234567steps", "0.125epochs", "33.3%", "0min"])
def test_a_duration_is_written_as_it_was_read(text: str) -> None:
    assert str(Duration.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    ["5", "5.5", "null", "steps", "-5steps", "5 weeks", "1e3steps", "5stepss", "''", "true", "[5]"],
)
def test_what_is_no_duration_is_refused_with_the_accepted_forms(file: Path, text: str) -> None:
    message = refusal(file, f"train: {{log_every: {text}}}")
    assert message.startswith(f"{file}: train.log_every: ")
    assert "such as 20steps, 2epochs, 5min or 10%" in message


def test_a_piece_of_a_step_is_no_duration(file: Path) -> None:
    assert "whole" in refusal(file, "train: {log_every: 2.5steps}")
    assert "{'value': 2.5" in refusal(file, "train: {log_every: {value: 2.5, unit: steps}}")


@pytest.mark.parametrize("key", ["train.log_every", "train.evaluate_every", "schedule.warmup"])
def test_what_must_fall_on_the_same_step_everywhere_is_not_measured_in_minutes(
    file: Path, key: str
) -> None:
    assert f"{key}: this is counted in steps" in refusal(file, "{}", f"{key}=5min")


def test_an_endless_duration_is_refused_on_one_line(file: Path) -> None:
    assert "finite" in refusal(file, f"train: {{log_every: {'9' * 400}epochs}}")


# Files


def test_a_missing_file_is_answered_with_its_nearest_sibling(tmp_path: Path) -> None:
    (tmp_path / "baseline.yaml").touch()
    (tmp_path / "other.yaml").touch()
    with pytest.raises(UserError) as caught:
        load(tmp_path / "basline.yaml")
    assert str(caught.value) == (
        f"{tmp_path}/basline.yaml: there is no such configuration file; "
        "did you mean 'baseline.yaml'?"
    )


def test_a_missing_folder_is_no_surprise(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load(tmp_path / "nowhere" / "a.yaml")
    assert str(caught.value) == (
        f"{tmp_path}/nowhere/a.yaml: there is no such configuration file; name a YAML file: the "
        "recipes are in configs/ of the project's folder"
    )


@pytest.mark.parametrize("name", ["speed94", "speed94.yaml"])
def test_the_name_of_a_recipe_is_answered_with_its_file(
    name: str, configs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(configs.parent)
    with pytest.raises(UserError) as caught:
        load(Path(name))
    assert str(caught.value) == (
        f"{name}: there is no such configuration file; did you mean 'configs/speed94.yaml'?"
    )


def test_a_folder_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load(tmp_path)
    assert str(caught.value) == f"{tmp_path}: is a folder; name a configuration file in it"


def test_a_file_that_is_no_text_is_refused(file: Path) -> None:
    file.write_bytes(b"seed: \xff\xfe")
    with pytest.raises(UserError, match="cannot be read as a text file"):
        load(file)


@pytest.mark.parametrize(
    ("text", "line"),
    [("seed: [", 1), ("a: 1\nb: [}\n", 2), ("\tseed: 1", 1), ("seed: 1\n--- \nseed: 2\n", 2)],
)
def test_what_is_not_yaml_is_refused_with_its_line(file: Path, text: str, line: int) -> None:
    assert refusal(file, text).startswith(f"{file} (line {line}): not valid YAML: ")


@pytest.mark.parametrize("text", ["name: a\x00b", "name: 2001-99-99", "name: " + "[" * 5000])
def test_what_the_yaml_reader_chokes_on_is_refused(file: Path, text: str) -> None:
    assert "not valid YAML: " in refusal(file, text)


@pytest.mark.parametrize("text", ["[1, 2]", "only words", "5"])
def test_what_is_no_mapping_is_refused(file: Path, text: str) -> None:
    assert refusal(file, text).startswith(f"{file}: a configuration is a mapping of sections")


@pytest.mark.parametrize("tag", ["object/apply:os.mkdir", "object/new:os.mkdir", "name:os.mkdir"])
def test_a_tag_that_would_run_code_is_refused_and_runs_nothing(
    file: Path, tmp_path: Path, tag: str
) -> None:
    proof = tmp_path / "it-ran"
    value = f"!!python/{tag} ['{proof}']"
    assert "could not determine a constructor" in refusal(file, f"name: {value}")
    assert "could not determine a constructor" in refusal(file, "{}", f"name={value}")
    assert not os.path.lexists(proof)


# Overrides


def test_an_override_wins_over_the_file_and_leaves_the_rest(file: Path) -> None:
    config = read(file, "train: {epochs: 3, precision: fp32}", "train.epochs=5", "seed=4")
    assert (config.train.epochs, config.train.precision, config.seed) == (5, "fp32", 4)


def test_an_override_may_name_a_section_the_file_lacks(file: Path) -> None:
    assert read(file, "seed: 1", "optim.lr=0.5").optim.lr == 0.5


def test_the_last_of_two_overrides_wins(file: Path) -> None:
    assert read(file, "{}", "train.epochs=5", "train.epochs=6").train.epochs == 6
    assert read(file, "{}", "train={epochs: 5}", "train.precision=fp32").train.epochs == 5


def test_the_value_of_an_override_is_yaml(file: Path) -> None:
    config = read(file, "{}", "data.augment=[crop, {name: flip}]", "checkpoint.every=null")
    assert config.data.augment == (Crop(), Flip())
    assert config.checkpoint.every is None
    assert read(file, "{}", "optim.nesterov=true").optim.nesterov is True


def test_only_the_first_equals_sign_divides_key_and_value(file: Path) -> None:
    assert read(file, "{}", "data.path=/data/a=b").data.path == Path("/data/a=b")


@pytest.mark.parametrize("override", ["train.epochs", "=3", ".epochs=3", "train..epochs=3", ""])
def test_what_is_no_override_is_refused_with_the_form(file: Path, override: str) -> None:
    assert f"{override!r} is not an override; write key.path=value" in refusal(file, "{}", override)


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("train.epoch=3", "unknown key 'train.epoch'; did you mean 'epochs'?"),
        ("trian.epochs=3", "unknown key 'trian'; did you mean 'train'?"),
        ("train.epochs=0", "train.epochs: input should be greater than or equal to 1 (it is 0)"),
        ("train.epochs=", "train.epochs: input should be a valid integer (it is None)"),
        ("data.augment.0.name=flip", "data.augment: "),
    ],
)
def test_what_an_override_did_wrong_names_the_override_and_not_the_file(
    file: Path, override: str, problem: str
) -> None:
    message = refusal(file, "seed: 1", override)
    assert message.startswith(f"the argument {override!r}: {problem}")
    assert str(file) not in message


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("optim.name=adam", "optim.name"),
        ("optim={name: adam}", "optim.name"),
        ("model.family=resnet", "model.family"),
        ("optim.rest.name=muon", "optim.rest.name"),
    ],
)
def test_a_section_that_an_override_chose_wrongly_is_its_doing(
    file: Path, override: str, key: str
) -> None:
    text = "model: {family: cnn}\noptim: {name: muon, rest: {name: sgd}}"
    message = refusal(file, text, override)
    assert message.startswith(f"the argument {override!r}: {key}: input should be one of ")
    assert str(file) not in message


def test_what_the_file_did_wrong_is_not_blamed_on_an_override(file: Path) -> None:
    message = refusal(file, "train: {epochs: 0}", "train.precision=fp32", "seed=3")
    assert message.startswith(f"{file}: train.epochs: ")
    message = refusal(file, "optim: {name: adam}", "optim.lr=0.1")
    assert message.startswith(f"{file}: optim.name: ")


def test_of_several_overrides_the_guilty_one_is_named(file: Path) -> None:
    message = refusal(file, "{}", "train.precision=fp32", "train.epochs=0", "train.device=cpu")
    assert message.startswith("the argument 'train.epochs=0': train.epochs: ")


def test_an_override_below_a_value_is_refused(file: Path) -> None:
    message = refusal(file, "seed: 1", "seed.deep=3")
    assert message == "'seed.deep=3': 'seed' is a value, not a section"


def test_an_override_opens_a_section_that_was_written_out_as_none(file: Path) -> None:
    changed = read(file, read(file, "{}").to_yaml(), "train.ema.decay=0.99")
    assert changed.train.ema is not None
    assert changed.train.ema.decay == 0.99


@pytest.mark.parametrize("key", ["bool", "train.bool"])
def test_a_key_that_is_called_like_a_type_is_unknown_like_any_other(file: Path, key: str) -> None:
    assert f"unknown key {key!r}" in refusal(file, "{}", f"{key}=1")


@pytest.mark.parametrize(
    "value",
    ["[", "{a: 1, a: 2}", "2001-99-99", "'open", "!!bool maybe", "!!int ''", "!!timestamp x"],
)
def test_an_override_that_is_not_yaml_is_refused(file: Path, value: str) -> None:
    message = refusal(file, "{}", f"seed={value}")
    assert f"{f'seed={value}'!r}: the value is not valid YAML: " in message


def test_a_key_without_its_section_is_answered_with_its_home(file: Path) -> None:
    assert "did you mean 'train.epochs'?" in refusal(file, "epochs: 2")


@pytest.mark.parametrize(
    ("override", "home"),
    [
        ("train.batch_size=64", "'data.batch_size'"),
        ("train.lr=3", "'optim.lr'"),
        ("train.seed=3", "'seed'"),
        ("data.every=3steps", "'schedule.every' or 'checkpoint.every'"),
    ],
)
def test_a_key_in_the_wrong_section_is_answered_with_its_home(
    file: Path, override: str, home: str
) -> None:
    key = override.partition("=")[0]
    assert f"unknown key {key!r}; did you mean {home}? (" in refusal(file, "seed: 1", override)


def test_a_gpu_is_called_cuda(file: Path) -> None:
    assert refusal(file, "train: {device: gpu}").endswith("(it is 'gpu'); did you mean 'cuda'?")


def test_a_single_augmentation_needs_no_list(file: Path) -> None:
    assert read(file, "data: {augment: flip}").data.augment == (Flip(),)


@pytest.mark.parametrize("value", ["5epochs", "10%", "0min", "2000000min", "soon"])
def test_a_watchdog_waits_for_minutes(file: Path, value: str) -> None:
    message = refusal(file, f"train: {{watchdog: {value}}}")
    assert "train.watchdog" in message


def test_a_watchdog_can_be_left_out(file: Path) -> None:
    assert read(file, "train: {watchdog: null}").train.watchdog is None
