"""What each fast path of the network saves.

    python benchmarks/fast_paths.py [--work=B64,B256,N1,N100] [--rounds=5] [--seconds=4]

Each row replaces one fast path of `dt_jax/networks` by its plain form, and has the
median over rounds of its time divided by that of the network as it is: of an update
with B windows, or of one timestep of N episodes (the network's part of a rollout). The
row "again" is the network as it is once more: its distance from 1 is the noise. A fast
path stays while one of its ratios is above 1.03.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np
import workload
from rich.console import Console
from rich.table import Table

from dt_jax.networks import decision_transformer, layers, transformer
from dt_jax.training.batches import DeviceBatches
from dt_jax.training.multi_step import MultiStep

Patches = list[tuple[Any, str, Any]]
UPDATES = 10  # per call


def main() -> None:
    """Measure each variant and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", default="B64,B256,N1,N100")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4, help="per turn")
    args = parser.parse_args()
    print(f"on {jax.devices()[0].device_kind}, JAX {jax.__version__}")
    columns = args.work.split(",")
    rows: dict[str, list[str]] = {name: [] for name in PLAIN_FORMS}
    for work in columns:
        make = update if work[0] == "B" else act
        ways = {}
        for name, patches in PLAIN_FORMS.items():
            with patched(patches):
                ways[name] = make(int(work[1:]))
                ways[name]()  # compiled while patched
        seconds = workload.seconds_of(ways, args.rounds, args.seconds)
        fast = seconds["as it is"]
        milliseconds = 1e3 * np.median(fast) / (UPDATES if work[0] == "B" else 1)
        rows["as it is"].append(f"{milliseconds:.2f} ms")
        for name in [*rows][1:]:
            rows[name].append(f"{workload.ratio(seconds[name], fast):.3f}")
    table = Table("in its plain form", *columns)
    for name, cells in rows.items():
        table.add_row(name, *cells)
    Console().print(table)


def update(batch_size: int) -> Callable[[], None]:
    """Return a function that makes UPDATES updates on random data."""
    config = workload.config(batch_size=batch_size, steps_per_dispatch=UPDATES)
    step, state = workload.training(config)
    batches = DeviceBatches([workload.sampler(config)], workload.sharding(config))
    multi_step = MultiStep(step, batches, UPDATES)
    inputs = multi_step.inputs(range(UPDATES))

    def call() -> None:
        nonlocal state
        state, _ = multi_step(state, inputs, UPDATES)
        jax.block_until_ready(state)

    return call


def act(episodes: int) -> Callable[[], None]:
    """Return a function that chooses the actions of one timestep."""
    agent = workload.agent(workload.config())
    params = jax.jit(agent.init)(jax.random.key(0)).params
    keys = jax.random.split(jax.random.key(0), episodes)
    context = agent.start(np.full(episodes, 6000, np.float32), keys)
    observations = np.zeros((episodes, workload.STATE), np.float32)
    zeros = np.zeros(episodes, np.float32)
    done = np.zeros(episodes, bool)
    step = jax.jit(agent.act)

    def call() -> None:
        nonlocal context
        context, actions = step(params, context, observations, zeros, done)
        jax.block_until_ready(actions)

    return call


@contextmanager
def patched(patches: Patches) -> Iterator[None]:
    """Replace attributes of modules and classes."""
    with ExitStack() as stack:
        for target, name, value in patches:
            stack.enter_context(patch.object(target, name, value))
        yield


def plain_linear(x: Any, kernel: Any, bias: Any = None) -> Any:
    """Multiply without flattening the leading axes first."""
    y = x @ kernel
    return y if bias is None else y + jnp.expand_dims(bias, range(x.ndim - 1))


def plain_layer_norm(x: Any, scale: Any, bias: Any) -> Any:
    """Leave the backward pass to automatic differentiation."""
    return layers._layer_norm_forward(x, scale, bias)[0]


def plain_gelu(x: Any) -> Any:
    """Leave the backward pass to automatic differentiation."""
    return x * layers._normal_cdf(x)


class TextbookAttention(transformer.Attention):
    """Three projections and an output projection, also for a single head."""

    def project(self, x: Any, select: Any) -> Any:
        """Return the queries of the selected tokens, and all keys and values."""
        kernels, biases = self._in_weights()
        q, k, v = (select(x), x, x)
        return tuple(map(layers.linear, (q, k, v), kernels, biases))

    def __call__(self, projections: Any, visible: Any, deterministic: bool) -> Any:
        """Return the attention output of each query, [B, R, D]."""
        q, k, v = projections
        scores = jnp.einsum("bre,ble->brl", q, k) * q.shape[-1] ** -0.5
        scores = jnp.where(visible, scores, jnp.finfo(scores.dtype).min)
        weights = self.drop(jax.nn.softmax(scores), deterministic)
        return self.out_proj(jnp.einsum("brl,ble->bre", weights, v))


class AllTokens(transformer.Transformer):
    """Computes all tokens in the last block, and selects afterwards."""

    def setup(self) -> None:
        """Define the submodules; no block expects fewer queries than tokens."""
        block = transformer.Block
        make = lambda *sizes, **_: block(*sizes, query_subset=False)  # noqa: E731
        with patch.object(transformer, "Block", make):
            super().setup()

    def forward(
        self, x: Any, projections: Any, visible: Any, select: Any, deterministic: bool
    ) -> Any:
        """Return the features of the selected tokens."""
        for i, block in enumerate(self.blocks):
            if i > 0:
                projections = block.project(x, lambda x: x)
            x = block(x, projections, visible, deterministic)
        return self.out_norm(select(x))


class NoProjectionCache(transformer.Transformer):
    """Projects the whole window in the first block, at each timestep."""

    def forward(self, x: Any, projections: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the features of the selected tokens."""
        projections = self.blocks[0].project(x, lambda x: x)
        return super().forward(x, projections, *args, **kwargs)


PLAIN_FORMS: dict[str, Patches] = {
    "as it is": [],
    "again": [],
    "attention of one head": [(transformer, "Attention", TextbookAttention)],
    "last block": [(decision_transformer, "Transformer", AllTokens)],
    "cache of projections": [(decision_transformer, "Transformer", NoProjectionCache)],
    "backward passes": [
        (layers, "layer_norm", plain_layer_norm),
        (transformer, "ACTIVATIONS", {"gelu": plain_gelu}),
    ],
    "bits of dropout": [(layers, "random_bits", jax.random.bits)],
    "linear": [(layers, "linear", plain_linear), (transformer, "linear", plain_linear)],
}


if __name__ == "__main__":
    main()
