"""The PyTorch baseline of the benchmarks computes what CORL's dt.py computed."""

import numpy as np
import pytest
from ml_collections import ConfigDict
from test_corl_parity import FILES, Case

torch = pytest.importorskip("torch")
from benchmarks import torch_dt  # noqa: E402


@pytest.fixture(params=[path for path in FILES if "f64" in path.stem], ids=str)
def case(request):
    return Case(request.param, np.float64)


@pytest.fixture
def model(case):
    config = ConfigDict(case.config)
    model = torch_dt.DecisionTransformer(config, config.state_dim, config.action_dim)
    init = case.under("init/").items()
    model.double().load_state_dict({k: torch.tensor(array) for k, array in init})
    return model


def tensors(case, step):
    batch = case.cast(case.batch(step))
    return [torch.tensor(array) for array in batch if array is not None]


def assert_close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)


def test_predictions_and_gradients_equal_corls(case, model):
    batch = tensors(case, 0)
    outputs = model(*batch[:4]).detach()
    case.assert_close(
        outputs, case.numbers["forward/actions_unmasked"], case.forward_atol
    )
    torch_dt.loss(model, batch).backward()
    for name, parameter in model.named_parameters():
        case.assert_close(
            parameter.grad, case.numbers[f"grad0/{name}"], case.forward_atol
        )


def test_training_equals_corls(case, model):
    update = torch_dt.make_update(model, ConfigDict(case.config))
    losses = [
        update(tensors(case, step)).item() for step in range(case.config["steps"])
    ]
    assert_close(losses, case.numbers["train/loss"])
    for name, parameter in model.named_parameters():
        case.assert_close(
            parameter.detach(), case.numbers[f"final/{name}"], case.forward_atol
        )
