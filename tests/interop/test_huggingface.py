"""Import from and export to Hugging Face, compared with the real transformers.

`make test` skips them, because they need PyTorch:
pip install 'dt_jax[hf]' && python -m pytest tests/interop/test_huggingface.py
"""

import json

import numpy as np
import pytest
from random_run import (
    EPISODE,
    STEPS,
    A,
    S,
    T,
    docs_example,
    episode_inputs,
    export_run,
    import_run,
    make_normalizer,
    play,
    write_random_run,
)

from dt_jax.evaluation.policy import Policy
from dt_jax.utils.errors import UserError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


def act_in_pytorch(model):
    """Return the actions [STEPS, N, A] of Hugging Face's model in `episode`.

    As its users run it: windows of T timesteps, padded on the left.
    """
    states, actions, returns, times = episode_inputs(make_normalizer())

    def window(array, t):
        part = np.moveaxis(array[max(t - T + 1, 0) : t + 1], 0, 1)
        width = [(0, 0), (T - part.shape[1], 0), *[(0, 0)] * (part.ndim - 2)]
        return torch.tensor(np.pad(part, width))

    for t in range(STEPS):
        with torch.no_grad():
            predicted = model(
                states=window(states, t),
                actions=window(actions, t),
                rewards=None,
                returns_to_go=window(returns[..., None], t),
                timesteps=window(times, t),
                attention_mask=window(np.ones((STEPS, 2), int), t),
                return_dict=True,
            ).action_preds
        actions[t] = predicted[:, -1].numpy()
    return actions


def random_model(**changes):
    """Return a model whose parameters all matter, above all row 0 of the positions."""
    settings = {"state_dim": S, "act_dim": A, "max_ep_len": EPISODE, "n_positions": 64}
    settings |= {"hidden_size": 12, "n_layer": 2, "n_head": 3}
    config = transformers.DecisionTransformerConfig(**settings | changes)
    model = transformers.DecisionTransformerModel(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.4, generator=generator)
    return model


@pytest.fixture
def flags(tmp_path):
    """The values that such a model does not have, as flags of the import."""
    path, normalizer = tmp_path / "normalization.json", make_normalizer()
    statistics = {k: normalizer.to_record()[k] for k in ("state_mean", "state_std")}
    path.write_text(json.dumps(statistics))
    return {"reward_scale": 0.5, "seq_len": T, "normalization": path}


@pytest.mark.parametrize("activation", ["relu", "gelu_new", "gelu"])
@pytest.mark.parametrize("heads", [1, 3])
def test_exported_run_acts_the_same_in_transformers(tmp_path, activation, heads):
    run, out = tmp_path / "run", tmp_path / "hf"
    write_random_run(run, activation=activation, num_heads=heads)
    export_run(run, "hf", out)
    model, info = transformers.DecisionTransformerModel.from_pretrained(
        out, output_loading_info=True
    )
    assert not any(info.values()), info
    ours = play(Policy.load(run))
    assert ours.std() > 0.1
    np.testing.assert_allclose(act_in_pytorch(model.eval()), ours, atol=1e-5)


def test_example_of_the_docs_loads_an_export(tmp_path, monkeypatch):
    write_random_run(tmp_path / "run")
    export_run(tmp_path / "run", "hf", tmp_path / "hopper-hf")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(docs_example("from transformers import"), names)
    ours = play(Policy.load(tmp_path / "run"))
    np.testing.assert_allclose(act_in_pytorch(names["model"]), ours, atol=1e-5)


def test_max_action_goes_into_the_units(tmp_path, capsys):
    run, out = tmp_path / "run", tmp_path / "hf"
    write_random_run(run, normalizer=make_normalizer(0.5, 3.0), max_action=2.0)
    export_run(run, "hf", out)
    assert "action_scale * action" in capsys.readouterr().out
    record = json.loads((out / "dt_jax.json").read_text())
    assert record["config"]["max_action"] == 1
    assert record["action_scale"] == [6.0] * A
    model = transformers.DecisionTransformerModel.from_pretrained(out).eval()
    theirs = 0.5 + 6 * act_in_pytorch(model)
    np.testing.assert_allclose(theirs, play(Policy.load(run)), atol=1e-5)


@pytest.mark.parametrize("activation", ["relu", "gelu_new", "gelu"])
@pytest.mark.parametrize("heads", [1, 3])
def test_imported_model_acts_as_in_transformers(tmp_path, flags, activation, heads):
    model = random_model(activation_function=activation, n_head=heads)
    model.save_pretrained(tmp_path / "hf")
    import_run(tmp_path / "hf", "hf", tmp_path / "run", **flags)
    theirs = act_in_pytorch(model)
    assert theirs.std() > 0.1
    ours = play(Policy.load(tmp_path / "run"))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_weights_saved_by_pytorch_are_imported(tmp_path, flags):
    """As many models on the hub are, with the masks of older versions."""
    model, folder = random_model(), tmp_path / "hf"
    model.save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    masks = {}
    for i in range(2):
        mask = torch.ones(1, 1, 64, 64, dtype=torch.bool)
        masks[f"encoder.h.{i}.attn.bias"] = mask
        masks[f"encoder.h.{i}.attn.masked_bias"] = torch.tensor(-1e4)
    torch.save(model.state_dict() | masks, folder / "pytorch_model.bin")
    import_run(folder, "hf", tmp_path / "run", **flags)
    ours = play(Policy.load(tmp_path / "run"))
    np.testing.assert_allclose(ours, act_in_pytorch(model), atol=1e-5)


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_half_precision_weights_are_imported(tmp_path, flags, kind):
    model = random_model().to(getattr(torch, kind))
    model.save_pretrained(tmp_path / "hf")
    import_run(tmp_path / "hf", "hf", tmp_path / "run", **flags)
    ours = play(Policy.load(tmp_path / "run"))
    np.testing.assert_allclose(ours, act_in_pytorch(model.float()), atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation_function": "silu"}, "activation=silu: expected one of"),
        ({"n_inner": 24}, r"different architecture: .*mlp_in.* \(12, 24\)"),
        ({"layer_norm_epsilon": 1e-6}, "has layer_norm_epsilon=1e-06: only 1e-05 is"),
        ({"action_tanh": False}, "has action_tanh=False: only True is supported"),
        ({"scale_attn_weights": False}, "has scale_attn_weights=False"),
        ({"scale_attn_by_inverse_layer_idx": True}, "has scale_attn_by_inverse"),
        ({"add_cross_attention": True}, "has add_cross_attention=True"),
    ],
)
def test_unsupported_model_is_refused(tmp_path, flags, changes, message):
    random_model(**changes).save_pretrained(tmp_path / "hf")
    with pytest.raises(UserError, match=message):
        import_run(tmp_path / "hf", "hf", tmp_path / "run", **flags)
    assert not (tmp_path / "run").exists()
