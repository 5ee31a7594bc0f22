"""Against the real transformers: a run goes there, a model comes from there.

They need PyTorch, so that `make test` leaves them out:
pip install 'dt_jax[hf]' && python -m pytest tests/formats/test_hf.py
"""

import json

import numpy as np
import pytest
from a_run import EPISODE, A, S, T, episode, page_code, played, scaling_of, write_a_run

from dt_jax.cli.export import export, import_run
from dt_jax.evaluation.policy import Policy
from dt_jax.utils.errors import UserError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
STEPS = 9  # more than T: the window moves on


def act_there(model, scaling, reward_scale, steps=STEPS):
    """Return the actions [steps, N, A] of Hugging Face's model in `episode`.

    As its users play it: windows of T timesteps, padded on the left.
    """
    observations, rewards = episode(steps)
    states = (observations - scaling["state_mean"]) / scaling["state_std"]
    targets = np.array([3.0, -2.0], np.float32) * reward_scale
    earned = np.cumsum(rewards * reward_scale, axis=0)
    returns = np.concatenate([targets[None], targets - earned[:-1]])
    actions = np.zeros((steps, 2, A), np.float32)

    def window(array, t):
        part = np.moveaxis(array[max(t - T + 1, 0) : t + 1], 0, 1)
        width = [(0, 0), (T - part.shape[1], 0), *[(0, 0)] * (part.ndim - 2)]
        return torch.tensor(np.pad(part, width))

    for t in range(steps):
        times = np.repeat(np.arange(steps)[:, None], 2, axis=1)
        with torch.no_grad():
            predicted = model(
                states=window(states, t),
                actions=window(actions, t),
                rewards=None,
                returns_to_go=window(returns[..., None], t),
                timesteps=window(times, t),
                attention_mask=window(np.ones((steps, 2), int), t),
                return_dict=True,
            ).action_preds
        actions[t] = predicted[:, -1].numpy()
    return actions


def random_model(**changes):
    """Return a model whose every number matters, the positions' first row above all."""
    settings = {
        "state_dim": S,
        "act_dim": A,
        "hidden_size": 12,
        "max_ep_len": EPISODE,
        "n_layer": 2,
        "n_head": 3,
        "n_positions": 64,
    }
    config = transformers.DecisionTransformerConfig(**settings | changes)
    model = transformers.DecisionTransformerModel(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.4, generator=generator)
    return model


@pytest.fixture
def normalization(tmp_path):
    path = tmp_path / "normalization.json"
    mean_and_std = ("state_mean", "state_std")
    path.write_text(json.dumps({k: scaling_of()[k].tolist() for k in mean_and_std}))
    return path


@pytest.mark.parametrize("activation", ["relu", "gelu_new", "gelu"])
@pytest.mark.parametrize("heads", [1, 3])
def test_a_run_acts_the_same_there(tmp_path, activation, heads):
    run, there = tmp_path / "run", tmp_path / "hf"
    write_a_run(run, activation=activation, num_heads=heads)
    export(run, "hf", there)
    model, info = transformers.DecisionTransformerModel.from_pretrained(
        there, output_loading_info=True
    )
    assert not any(info.values()), info
    ours = played(Policy.load(run), STEPS)
    theirs = act_there(model.eval(), scaling_of(), reward_scale=0.5)
    assert ours.std() > 0.1
    np.testing.assert_allclose(theirs, ours, atol=1e-5)


def test_the_page_loads_it(tmp_path, monkeypatch):
    write_a_run(tmp_path / "run")
    export(tmp_path / "run", "hf", tmp_path / "hopper-hf")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(page_code("transformers"), names)
    theirs = act_there(names["model"], scaling_of(), reward_scale=0.5)
    ours = played(Policy.load(tmp_path / "run"), STEPS)
    np.testing.assert_allclose(theirs, ours, atol=1e-5)


@pytest.mark.parametrize("activation", ["relu", "gelu_new", "gelu"])
@pytest.mark.parametrize("heads", [1, 3])
def test_a_model_acts_the_same_here(tmp_path, normalization, activation, heads):
    model = random_model(activation_function=activation, n_head=heads)
    model.save_pretrained(tmp_path / "hf")
    told = {"reward_scale": 0.5, "seq_len": T}
    assert len(import_run(tmp_path / "hf", "hf", tmp_path / "run", told, normalization))
    ours = played(Policy.load(tmp_path / "run"), STEPS)
    theirs = act_there(model, scaling_of(), reward_scale=0.5)
    assert theirs.std() > 0.1
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_the_positions_first_row_matters(tmp_path, normalization):
    """Else the test above would not show that it is folded into the bias."""
    model = random_model()
    before = act_there(model, scaling_of(), reward_scale=0.5)
    with torch.no_grad():
        model.encoder.wpe.weight[0] = 0
    without = act_there(model, scaling_of(), reward_scale=0.5)
    assert np.abs(before - without).max() > 0.01
    with torch.no_grad():
        model.encoder.wpe.weight[1:] = 0
    same = act_there(model, scaling_of(), reward_scale=0.5)
    np.testing.assert_array_equal(same, without)


def test_weights_that_pytorch_saved(tmp_path, normalization):
    """As the models on the hub are: with the masks of older versions."""
    model, folder = random_model(), tmp_path / "hf"
    model.save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    masks = {
        f"encoder.h.{i}.attn.{name}": value
        for i in range(2)
        for name, value in [
            ("bias", torch.ones(1, 1, 64, 64, dtype=torch.bool)),
            ("masked_bias", torch.tensor(-1e4)),
        ]
    }
    torch.save(model.state_dict() | masks, folder / "pytorch_model.bin")
    told = {"reward_scale": 0.5, "seq_len": T}
    import_run(folder, "hf", tmp_path / "run", told, normalization)
    ours = played(Policy.load(tmp_path / "run"), STEPS)
    theirs = act_there(model, scaling_of(), reward_scale=0.5)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_half_precision_weights(tmp_path, normalization):
    for kind in (torch.bfloat16, torch.float16):
        model = random_model().to(kind)
        folder = tmp_path / str(kind)
        model.save_pretrained(folder)
        told = {"reward_scale": 0.5, "seq_len": T}
        import_run(folder, "hf", tmp_path / f"run-{kind}", told, normalization)
        ours = played(Policy.load(tmp_path / f"run-{kind}"), STEPS)
        theirs = act_there(model.float(), scaling_of(), reward_scale=0.5)
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_max_action_goes_into_the_units(tmp_path):
    run, there = tmp_path / "run", tmp_path / "hf"
    write_a_run(run, max_action=2.0, center=0.5, scale=3.0)
    lines = export(run, "hf", there)
    assert "action_scale * action" in lines[-1]
    record = json.loads((there / "dt_jax.json").read_text())
    assert record["config"]["max_action"] == 1
    assert record["action_scale"] == [6.0] * A
    model = transformers.DecisionTransformerModel.from_pretrained(there).eval()
    theirs = 0.5 + 6 * act_there(model, scaling_of(), reward_scale=0.5)
    np.testing.assert_allclose(theirs, played(Policy.load(run), STEPS), atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation_function": "silu"}, "has activation_function=silu: this network"),
        ({"n_inner": 24}, r"of another network than ours: .*mlp_in.* \(12, 24\)"),
        ({"layer_norm_epsilon": 1e-6}, "has layer_norm_epsilon=1e-06: this network's"),
        ({"action_tanh": False}, "has action_tanh=False"),
        ({"scale_attn_weights": False}, "has scale_attn_weights=False"),
        ({"scale_attn_by_inverse_layer_idx": True}, "has scale_attn_by_inverse"),
        ({"add_cross_attention": True}, "has add_cross_attention=True"),
    ],
)
def test_a_model_that_ours_cannot_be_is_refused(
    tmp_path, normalization, changes, message
):
    random_model(**changes).save_pretrained(tmp_path / "hf")
    told = {"reward_scale": 0.5, "seq_len": T}
    with pytest.raises(UserError, match=message):
        import_run(tmp_path / "hf", "hf", tmp_path / "run", told, normalization)
    assert not (tmp_path / "run").exists()
