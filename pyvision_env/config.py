"""Configuration of the environment: small pydantic models, JSON-able, with defaults that work."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

Positive = Annotated[int, Field(ge=1)]
# A day: longer waits are mistakes, and clocks of the system overflow far above it.
Seconds = Annotated[FiniteFloat, Field(gt=0, le=86_400)]


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Limits(_Config):
    """Budgets of one episode.

    Attributes:
        max_turns: Tool turns before the episode is truncated (paper: 4 in training, 30 in evaluation). The answer turn
            is not counted, so ``max_turns`` tool turns can be followed by an answer.
        max_images: Images in the context, given and produced (paper: 32).
        max_images_per_turn: Images one turn may add.
        max_pixels: Pixels of an image shown to the model; larger ones are scaled down (paper: 2,000,000).
        min_pixels: Pixels of an image shown to the model; smaller ones are scaled up (paper: 3,136).
        max_text_chars: Characters of tool text in one observation.
        max_visual_tokens: Visual tokens in the context; None for no bound.
        code_timeout_s: Wall seconds one turn's code may take before it is interrupted (state is kept).
        kill_grace_s: Further seconds after which code that ignored the interrupt is killed (state is lost).
        figures: ``faithful`` gives every figure as its canvas draws it; ``content`` gives a figure that is exactly one
            image as that image's own pixels: with its norm, colour map, alpha, origin, limits and aspect applied,
            without margins and the ticks that matplotlib chose. A figure to which the code added anything else (a
            title, labels, a grid, patches, text, a colour bar, further axes or images) is drawn as ever.
    """

    max_turns: Positive = 4
    max_images: Positive = 32
    max_images_per_turn: Positive = 8
    max_pixels: Positive = 2_000_000
    min_pixels: Positive = 3_136
    max_text_chars: Positive = 8_192
    max_visual_tokens: Positive | None = None
    code_timeout_s: Seconds = 20.0
    kill_grace_s: Seconds = 2.0
    figures: Literal["faithful", "content"] = "faithful"

    @model_validator(mode="after")
    def _pixels_leave_a_choice(self) -> Limits:
        if self.min_pixels > self.max_pixels:
            raise ValueError(f"min_pixels ({self.min_pixels}) must not exceed max_pixels ({self.max_pixels})")
        return self


class RewardConfig(_Config):
    r"""The reward ``R = accuracy + tool_weight * n_counted * gate + format_weight * 1[well formed]``.

    Source: arXiv 2602.20739, accumulative tool reward ``R = R_acc + 0.1 * n_tc * 1[R_acc = 1]``.

    Attributes:
        tool_weight: Reward of one counted tool call (paper: 0.1). A turn holds at most one counted call.
        gate: ``correct`` pays all counted calls at the final step if the answer is correct (paper); ``immediate`` pays
            each counted call at its own step whatever the answer.
        count: ``successful`` counts calls that ran without error; ``all`` counts failed ones too (paper).
        max_counted: Calls beyond this many earn nothing; None for no bound.
        format_weight: Reward of a final answer in the expected form (``\boxed{}``); 0 in the paper.
    """

    tool_weight: FiniteFloat = 0.1
    gate: Literal["correct", "immediate"] = "correct"
    count: Literal["successful", "all"] = "successful"
    max_counted: Positive | None = None
    format_weight: FiniteFloat = 0.0


NodeKind = Literal["auto", "docker", "docker-strict", "local", "local-unconfined"]
SandboxKind = Literal[NodeKind, "ray"]


class ClusterConfig(_Config):
    """The nodes of a Ray cluster that host sandboxes (kind ``ray``).

    Attributes:
        address: Of the cluster; ``auto`` for the one that ``RAY_ADDRESS`` names or that runs on this machine. A process
            that has joined a cluster already uses that one.
        node_kind: Kind of the sandbox on each node.
        actors_per_node: Actors, each with a sandbox of its own, on one node.
        cpus: Processors of its node that one actor claims from Ray.
        memory_mb: Memory of its node that one actor claims from Ray, MiB; None to claim none.
        resource: Custom Ray resource that marks the nodes to use; None for every node that has what an actor claims.
        media_mb: Images and videos kept for further rollouts, on each actor and here, MiB.
    """

    address: str = "auto"
    node_kind: NodeKind = "auto"
    actors_per_node: Positive = 1
    cpus: Annotated[FiniteFloat, Field(ge=0)] = 1.0
    memory_mb: Positive | None = None
    resource: str | None = None
    media_mb: Positive = 512


class SandboxConfig(_Config):
    """Where and how model-written code runs.

    Attributes:
        kind: ``docker`` (a few containers, many confined episodes each), ``docker-strict`` (a container per episode),
            ``local`` (the same worker and confinement without a container), ``local-unconfined`` (no isolation, only by
            name), ``auto`` (docker where an engine and the image are there, else local) or ``ray`` (one of these on
            each node of a cluster, to which the other settings then apply).
        image: Name of the sandbox image.
        runtime: OCI runtime of the containers, such as ``runsc`` (gVisor, for ``docker-strict``); None for the
            engine's default.
        containers: Shared containers (or local zygotes) at most.
        episodes_per_container: Episodes at once in one shared container.
        warm: Idle containers kept ready in strict mode.
        memory_mb: Memory one episode may use, MiB.
        container_memory_mb: Memory of one shared container, and of the episodes of one local worker, MiB.
        disk_mb: Files one episode may write, MiB.
        processes: Processes and threads of one episode.
        cpus: Processor cores of one shared container; None for no bound.
        cpu_seconds: Processor seconds one process of an episode may use in its life.
        start_timeout_s: Seconds for a container or worker to become ready.
        open_timeout_s: Seconds to wait for a free slot, and then for an episode to become ready. A worker that is being
            started when they are over is still waited for.
        max_waiting: Episodes that may wait for a free slot at once; a further one gets an error instead.
        frame_cache_mb: Memory for decoded video frames that the episodes of a task share, MiB over all videos of this
            sandbox; 0 lets every episode decode for itself, as a ``runtime`` with a kernel of its own does anyway.
        cluster: Which cluster, and what runs on its nodes (kind ``ray``).
    """

    kind: SandboxKind = "auto"
    image: str = "pyvision-sandbox"
    runtime: str | None = None
    containers: Positive = 4
    episodes_per_container: Positive = 64
    warm: Annotated[int, Field(ge=0)] = 2
    memory_mb: Positive = 1_024
    container_memory_mb: Positive = 6_144
    disk_mb: Positive = 64
    processes: Positive = 64
    cpus: Annotated[FiniteFloat, Field(gt=0)] | None = None
    cpu_seconds: Positive = 600
    start_timeout_s: Seconds = 120.0
    open_timeout_s: Seconds = 60.0
    max_waiting: Positive = 1_024
    frame_cache_mb: Annotated[int, Field(ge=0)] = 2_048
    cluster: ClusterConfig = ClusterConfig()


class EnvConfig(_Config):
    """Everything of an environment but its tasks.

    Attributes:
        limits: Budgets.
        reward: Reward terms.
        sandbox: Where code runs.
        media_in_prompt: Show the media in the first observation (True), hold them in the runtime only (False), or
            images shown and videos held in the runtime (None). A task's own setting wins.
        prompt_frames: Frames of a video spread evenly in the prompt when media are shown.
        end_on_error: End the episode when the model's code raises (the original's behaviour).
        end_on_image_budget: End the episode when a tool is called and no image is left; else it goes on with text only.
        action_mode: ``text`` (raw model text) or ``structured``.
    """

    limits: Limits = Limits()
    reward: RewardConfig = RewardConfig()
    sandbox: SandboxConfig = SandboxConfig()
    media_in_prompt: bool | None = None
    prompt_frames: Positive = 8
    end_on_error: bool = False
    end_on_image_budget: bool = False
    action_mode: Literal["text", "structured"] = "text"
