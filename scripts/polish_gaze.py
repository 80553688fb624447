"""Teach the last blocks of a gaze model what its own gazes were worth, on a CPU.

    python scripts/polish_gaze.py --videos DIR --images DIR --work CACHE --out DIR [--init bundled] [--clips 320]

The model gazes at training clips. At the start of each of its groups a greedy search goes on from the canvas that the
model left: what each patch would gain at each head is what the last blocks, the final norm and the gaze head learn,
from what the blocks below say, which is computed once. All else, the stop head included, stays bit for bit what it was,
and what the stop head says is held where it was, or frames would end elsewhere.
What was gathered lies in CACHE, which is of one model, one number of blocks and one choice of clips; the same command
goes on where it was interrupted. In a second round, with ``--init`` the model of the first, a new CACHE and ``--also``
the old one, it learns from where it goes now. Weights are rounded to bf16.
"""

from __future__ import annotations

import argparse
import json
import time
import zlib
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autogaze.datasets.clips import ClipMix, mixed_sources
from autogaze.datasets.feed import ClipFeed
from autogaze.datasets.labellers import GreedyLabeller
from autogaze.datasets.labels import Label
from autogaze.datasets.order import SampleOrder
from autogaze.datasets.recipes import source_name
from autogaze.datasets.stream import ClipShape, LabelledClip
from autogaze.evaluation.facts import weights_sha256
from autogaze.gaze import Gaze
from autogaze.models.autogaze.autogaze import AutoGaze
from autogaze.models.autogaze.checkpoint import WEIGHTS_NAME, write_tensors
from autogaze.models.autogaze.modeling_autogaze import GazeDecoder, rotate
from autogaze.models.autogaze.scoring import IMPOSSIBLE, Slots
from autogaze.packing import pack
from autogaze.selectors.cells import Pixels, Tiling
from autogaze.selectors.distortion import Scales, canvas_errors, loss
from autogaze.selectors.greedy import Search
from autogaze.selectors.painting import Painting
from autogaze.training.networks import gaze_model
from autogaze.training.rollouts import Rollouts, member_generator

# Shape letters: L tokens of a clip, C channels, S groups of all frames, K gazes of a group, P patches, V vocabulary,
# T frames.

MAX_GAZES = 400
"""Most gazes of a label; the model gets up to e^0.5 times as many in each frame."""
MOST_OF_A_FRAME = 200
WHOLE_GROUPS = 0.35
"""Share of frames whose last group is completed, so that late heads learn of frames with little to see too."""
LEAST_GAIN = 2e-5
"""Heads whose best patch gains less loss than this learn nothing."""
CLAIM = "lessons.json"
"""Says beside lessons what they are of."""
LOSS_FLOOR = 0.005
"""A change of what the stop head says counts relative to what it said plus this."""
ASIDE = 5
"""One of so many sources judges and teaches nothing, unless --all is given."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Lesson:
    """What there is to learn from one clip."""

    tokens_LC: Tensor
    """(L, C) fp16 what the first block that learns reads."""
    before_S: Tensor
    """(S,) token that each group is read out at."""
    taken_SV: Tensor
    """(S, V) bool what was chosen in the frame before the group, and the end token."""
    target_SK: Tensor
    """(S, K) int64 patch that the search takes for each head; -1 where nothing is left to gain."""
    gain_SKP: Tensor
    """(S, K, P) fp16 loss in thousandths that each patch would take off the canvas then; 0 for harm."""


def gains(rgb: Pixels, gaze: Gaze, *, group: int) -> tuple[Tensor, Tensor]:
    """Targets (S, K) and gains (S, K, P) at the start of each group of a gaze."""
    tiling = Tiling(gaze.layout)
    canvas = Painting.blank(tiling)
    unit = 1000 * loss(1.0, tiling.num_values)
    targets, found = [], []
    for frame, one in zip(rgb, gaze, strict=True):
        tiles = tiling.split(frame)
        scales = Scales.of(tiles, tiling, squared=False)  # all of them: every gain is asked for, not the best alone
        search = Search(canvas_errors(tiles, canvas, tiling, squared=False), scales)
        own = one.index.tolist()
        for start in range(0, len(own), group):
            fork, target = search.fork(), np.full(group, -1, np.int64)
            gain = np.zeros((group, gaze.layout.num_indices), np.float16)
            for head in range(group):
                patch, best = fork.best()
                if best <= 0:
                    break
                target[head], gain[head] = patch, unit * fork.gains[0].clip(min=0)
                fork.take(patch)
            targets.append(target)
            found.append(gain)
            for patch in own[start : start + group]:
                search.take(patch)
        scales.paste(np.array(own, np.int64), canvas)
    return torch.from_numpy(np.stack(targets)), torch.from_numpy(np.stack(found))


@torch.no_grad()
def lesson(model: AutoGaze, clip: LabelledClip[Label], *, seed: int, blocks: int) -> Lesson:
    """Let the model gaze at a clip and look at what it did; the last ``blocks`` are to learn from it."""
    decoder, number = model.gazing_model.gaze_decoder, clip.recipe.number
    K, V = decoder.group_size, decoder.vocab_size
    rng = np.random.default_rng([seed, number, 10])
    count_T = np.ceil(clip.label.gaze.count * np.exp(rng.uniform(0, 0.5))).astype(np.int64).clip(1, MOST_OF_A_FRAME)
    count_T = np.where(rng.random(len(count_T)) < WHOLE_GROUPS, -(-count_T // K) * K, count_T)
    rollouts = Rollouts(model, torch.from_numpy(np.array(clip.rgb))[None], temperature=0.02)
    (gaze,) = rollouts.draw(count_T[None], generators=[member_generator(seed=seed, step=0, number=number, member=0)])
    packed = pack([gaze])
    counts = packed.num_gazing_each_frame.tolist()
    frame_N = torch.repeat_interleave(packed.num_gazing_each_frame)
    index_BN = packed.gazing_pos - frame_N * packed.num_vision_tokens_each_frame
    read: list[Tensor] = []
    hook = decoder.model.layers[-blocks].register_forward_pre_hook(lambda _, given: read.append(given[0]))
    model.gazing_model.stop_features(rollouts.visual_BTPC, index_BN, ~packed.if_padded_gazing, counts)
    hook.remove()
    visual_tokens = rollouts.visual_BTPC.shape[2]
    slots = Slots.of(counts, visual_tokens=visual_tokens, group_size=K, device=torch.device("cpu"))
    taken_SV = torch.zeros(len(slots.first_S), V, dtype=torch.bool)
    for group, (first, frame) in enumerate(zip(slots.first_S.tolist(), slots.frame_S.tolist(), strict=True)):
        taken_SV[group, index_BN[0, :first][frame_N[:first] == frame]] = True
    taken_SV[:, -1] = True
    target_SK, gain_SKP = gains(np.array(clip.rgb), gaze, group=K)
    return Lesson(
        tokens_LC=read[0][0].half(), before_S=slots.before_S, taken_SV=taken_SV, target_SK=target_SK, gain_SKP=gain_SKP
    )


def gather_share(arguments: argparse.Namespace, rank: int) -> None:
    """Write the lessons of every so many-th clip from ``rank`` on, but those that are there."""
    torch.set_num_threads(1)
    model = gaze_model(init=arguments.init, shape="", seed=0).eval()
    numbers = range(rank, arguments.clips, arguments.jobs)
    missing = [number for number in numbers if not lesson_path(arguments, number).exists()]
    if not missing:
        return
    sources = mixed_sources(
        videos=arguments.videos, images=arguments.images, procedural=arguments.procedural, grid=model.grid
    )
    with ClipFeed(
        ClipMix(sources=sources, seed=arguments.seed, max_gazes=MAX_GAZES, clean=1.0),
        ClipShape(grid=model.grid, frames=model.config.max_num_frames),
        batch=arguments.jobs,
        order=SampleOrder(block=4096, reuse=1, seed=arguments.seed),
        labeller=GreedyLabeller(grid=model.grid),
        rank=rank,
        world=arguments.jobs,
        first_step=missing[0] // arguments.jobs,
    ) as feed:
        for number in range(missing[0], arguments.clips, arguments.jobs):
            clips, path = feed.step(), lesson_path(arguments, number)
            if path.exists():
                continue
            found = [
                (clip.recipe.path, lesson(model, clip, seed=arguments.seed, blocks=arguments.blocks).__dict__)
                for clip in clips
            ]
            torch.save(found, path.with_suffix(".part"))
            path.with_suffix(".part").replace(path)
            print(f"clip {number + 1} of {arguments.clips}", flush=True)


def lesson_path(arguments: argparse.Namespace, number: int) -> Path:
    """Where the lesson of a clip lies."""
    work: Path = arguments.work
    return work / f"{number}.pt"


def claim_caches(arguments: argparse.Namespace) -> None:
    """Take the cache for these lessons; end if it, or one of those to learn from too, holds others that do not fit."""
    now: dict[str, object] = {
        "blocks": arguments.blocks,
        "weights_sha256": weights_sha256(gaze_model(init=arguments.init, shape="", seed=0)),
        "seed": arguments.seed,
        "procedural": arguments.procedural,
        "videos": [str(path.resolve()) for path in arguments.videos],
        "images": [str(path.resolve()) for path in arguments.images],
    }
    arguments.work.mkdir(parents=True, exist_ok=True)
    for folder, fixed in ((arguments.work, tuple(now)), *((also, ("blocks",)) for also in arguments.also)):
        path = folder / CLAIM
        if not path.exists():
            continue
        was = json.loads(path.read_text(encoding="utf-8"))
        other = [f"{name} {was[name]} and not {now[name]}" for name in fixed if was[name] != now[name]]
        if other:
            raise SystemExit(f"{folder} holds lessons of {', of '.join(other)}; give another folder, or remove it")
    (arguments.work / CLAIM).write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8")


def gather(arguments: argparse.Namespace) -> tuple[list[Lesson], list[Lesson]]:
    """Lessons of all clips, from the cache where they are there: those that teach, and those that judge."""
    claim_caches(arguments)
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        list(pool.map(gather_share, [arguments] * arguments.jobs, range(arguments.jobs)))
    teaching, judging = list[Lesson](), list[Lesson]()
    paths = [lesson_path(arguments, number) for number in range(arguments.clips)]
    for path in paths + [path for folder in arguments.also for path in sorted(folder.glob("*.pt"))]:
        for source, fields in torch.load(path, weights_only=False):
            name = str(path) if source is None else source_name(source)
            aside = zlib.crc32(name.encode()) % ASIDE == 0 and not arguments.all
            (judging if aside else teaching).append(Lesson(**fields))
    return teaching, judging


def hidden(decoder: GazeDecoder, one: Lesson, *, blocks: int) -> Tensor:
    """(S, C) what the heads read before each group, with gradients to the last ``blocks``."""
    tokens_LC, at_S = one.tokens_LC.float(), one.before_S
    position_1L = torch.arange(len(tokens_LC))[None]
    cos, sin = decoder.model.rotary(position_1L, tokens_LC.dtype)
    *below, block = decoder.model.blocks[-blocks:]
    for lower in below:
        tokens_LC = lower(tokens_LC[None], cos, sin, None)[0]
    attention = block.self_attn
    x = block.input_layernorm(tokens_LC)[None]
    heads = (1, -1, attention.k_proj.out_features // attention.head_dim, attention.head_dim)
    k = rotate(attention.k_proj(x).view(heads), cos, sin).transpose(1, 2)
    v = attention.v_proj(x).view(heads).transpose(1, 2)
    q = attention.q_proj(x[:, at_S]).view(1, len(at_S), -1, attention.head_dim)
    q = rotate(q, cos[:, at_S], sin[:, at_S]).transpose(1, 2)
    seen = F.scaled_dot_product_attention(q, k, v, position_1L <= at_S[:, None], enable_gqa=q.shape[1] != k.shape[1])
    y = tokens_LC[at_S][None] + attention.o_proj(seen.transpose(1, 2).flatten(2))
    y = y + block.mlp(block.post_attention_layernorm(y))
    out: Tensor = decoder.model.norm(y)[0]
    return out


def sums(decoder: GazeDecoder, one: Lesson, hidden_SC: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Cross-entropy of the search's patches, expected share of the best gain, that of the likeliest patch; heads."""
    S, K = one.target_SK.shape
    logits_SKV = decoder.lm_head(hidden_SC).view(S, K, -1)
    target_SK1 = one.target_SK.clamp(min=0)[..., None]
    # Before each head the patches of the heads before it are gone.
    gone_SKV = F.one_hot(target_SK1[..., 0], logits_SKV.shape[-1]).cumsum(1).roll(1, dims=1).bool()
    gone_SKV[:, 0] = False
    taken_SKV = gone_SKV | one.taken_SV[:, None]
    log_SKV = logits_SKV.masked_fill(taken_SKV, IMPOSSIBLE).log_softmax(-1)
    gain_SKP = one.gain_SKP.float()
    best_SK = gain_SKP.amax(-1)
    known_SK = ((one.target_SK >= 0) & (best_SK > 1000 * LEAST_GAIN)).float()
    share_SKV = F.pad(gain_SKP / best_SK.clamp(min=1e-6)[..., None], (0, 1)).masked_fill(taken_SKV, 0)
    entropy_SK = -log_SKV.gather(-1, target_SK1)[..., 0]
    expected_SK = (log_SKV.exp() * share_SKV).sum(-1)
    likeliest_SK = share_SKV.gather(-1, log_SKV.argmax(-1, keepdim=True))[..., 0]
    return (
        (entropy_SK * known_SK).sum(),
        (expected_SK * known_SK).sum(),
        (likeliest_SK * known_SK).sum(),
        known_SK.sum(),
    )


def teach(arguments: argparse.Namespace, decoder: GazeDecoder, lessons: list[Lesson]) -> None:
    """Adam over the lessons, linear decay, averaged weights at the end."""
    learning: list[nn.Module] = [*decoder.model.blocks[-arguments.blocks :], decoder.model.norm, decoder.lm_head]
    decoder.requires_grad_(False)
    weights = [weight for module in learning for weight in module.requires_grad_(True).parameters()]
    optimiser = torch.optim.AdamW(weights, lr=arguments.lr, weight_decay=0.01, betas=(0.9, 0.98))
    steps, batch = int(arguments.epochs * len(lessons) / arguments.batch), arguments.batch
    rng, order = np.random.default_rng(arguments.seed), list[int]()
    average, begun = [weight.detach().clone() for weight in weights], time.perf_counter()

    def losses(one: Lesson) -> Tensor:
        with torch.no_grad():
            return decoder.predicted_losses(hidden(decoder, one, blocks=arguments.blocks))

    def gradients(one: Lesson) -> tuple[Tensor, ...]:
        hidden_SC = hidden(decoder, one, blocks=arguments.blocks)
        entropy, expected, _, _ = sums(decoder, one, hidden_SC)
        said_SK = told[id(one)]
        drift_SK = (decoder.predicted_losses(hidden_SC) - said_SK) / (said_SK.abs() + LOSS_FLOOR)
        gazing = entropy - arguments.gain_weight * expected
        return torch.autograd.grad(gazing + arguments.stop_weight * drift_SK.square().sum(), weights)

    # A clip for each thread keeps the processor busier than all threads at one clip.
    pool = ThreadPoolExecutor(arguments.jobs, initializer=torch.set_num_threads, initargs=(1,))
    told = dict(zip(map(id, lessons), pool.map(losses, lessons), strict=True))
    for step in range(steps):
        while len(order) < batch:
            order += rng.permutation(len(lessons)).tolist()
        some, order = [lessons[place] for place in order[:batch]], order[batch:]
        heads = sum(one.target_SK.numel() for one in some)
        for group in optimiser.param_groups:
            group["lr"] = arguments.lr * min(1.0, (step + 1) / 20) * (1 - step / steps)
        for weight, parts in zip(weights, zip(*pool.map(gradients, some), strict=True), strict=True):
            weight.grad = torch.stack(parts).sum(0) / heads
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        with torch.no_grad():
            for mean, weight in zip(average, weights, strict=True):
                mean.lerp_(weight, 1 - min(0.98, step / (step + 5)))
        if (step + 1) % 20 == 0:
            print(f"step {step + 1} of {steps}, {time.perf_counter() - begun:.0f} s", flush=True)
    pool.shutdown()
    with torch.no_grad():
        for mean, weight in zip(average, weights, strict=True):
            weight.copy_(mean)


@torch.no_grad()
def tell(when: str, decoder: GazeDecoder, lessons: list[Lesson], *, blocks: int) -> None:
    """How good the model's choices are on clips kept aside."""
    if not lessons:
        return
    found = [sums(decoder, one, hidden(decoder, one, blocks=blocks)) for one in lessons]
    entropy, expected, likeliest, heads = (float(torch.stack(parts).sum()) for parts in zip(*found, strict=True))
    shares = f"of the best gain {likeliest / heads:.1%}, expected {expected / heads:.1%}"
    print(f"{when}: {entropy / heads:.3f} nats a gaze; {shares}", flush=True)


def main() -> None:
    """Gather, teach, round, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, nargs="+", required=True)
    parser.add_argument("--images", type=Path, nargs="*", default=[])
    parser.add_argument("--procedural", type=float, default=0.05)
    parser.add_argument("--work", type=Path, required=True, help="where lessons are kept; 1.7 MB a clip")
    parser.add_argument("--also", type=Path, nargs="*", default=[], help="lessons of earlier rounds, to learn from too")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--init", default="bundled")
    for name, number in (("clips", 320), ("blocks", 2), ("jobs", 2), ("batch", 8), ("seed", 21)):
        parser.add_argument(f"--{name}", type=int, default=number)
    for name, value in (("epochs", 4.0), ("lr", 3e-4), ("gain-weight", 10.0), ("stop-weight", 30.0)):
        parser.add_argument(f"--{name}", type=float, default=value)
    parser.add_argument("--all", action="store_true", help="learn from the sources kept aside too")
    arguments = parser.parse_args()
    model = gaze_model(init=arguments.init, shape="", seed=0).eval()
    decoder = model.gazing_model.gaze_decoder
    lessons, aside = gather(arguments)
    tell("before", decoder, aside, blocks=arguments.blocks)
    teach(arguments, decoder, lessons)
    tell("after", decoder, aside, blocks=arguments.blocks)
    model.save_pretrained(arguments.out)
    rounded = {name: value.to(torch.bfloat16).contiguous() for name, value in model.state_dict().items()}
    write_tensors(rounded, arguments.out / WEIGHTS_NAME)


if __name__ == "__main__":
    main()
