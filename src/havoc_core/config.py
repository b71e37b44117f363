"""The one page of knobs: everything that a YAML file or a flag can set.

Frozen pydantic models, each field with its unit and its reason. What belongs to one component alone (an
optimizer's own constants, say) lives in that component's file as its `Options` and is reached through the
`<name>_options` mapping. Imports no torch, so that a mistake in a file is answered at once.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError


def _no_truth_value(value: Any) -> Any:
    """Pydantic takes true for 1: `batch_size: yes` would be a batch of one."""
    if isinstance(value, bool):
        raise PydanticCustomError("int_type", "a whole number")
    return value


def _on_or_off(value: Any) -> Any:
    """YAML 1.1 reads a bare on or off as true or false."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


Whole = Annotated[int, BeforeValidator(_no_truth_value)]
Positive = Annotated[Whole, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Action = Annotated[Literal["annotate", "drop", "off"], BeforeValidator(_on_or_off)]


class Section(BaseModel):
    """A frozen group of settings; a key that is not listed is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=(), allow_inf_nan=False
    )


class AttentionConfig(Section):
    """Grouped-query attention."""

    num_heads: Positive = 32
    """Query heads."""
    head_dim: Positive | None = None
    """Width of one head; null: d_model / num_heads."""
    num_kv_heads: Positive = 8
    """Key and value heads; each serves num_heads / num_kv_heads query heads."""
    rotary_dim: Annotated[Whole, Field(ge=2)] | None = None
    """How many of a head's channels are rotated by position; null: all. Fewer cannot be exported."""
    rope_theta: Annotated[float, Field(gt=1.0)] = 10000.0
    """Base of the rotary frequencies. Longer contexts want a larger one."""
    qk_norm: bool = True
    """RMSNorm on every query and key head, which keeps large learning rates stable. true exports as Qwen3, false as Llama."""

    @model_validator(mode="after")
    def _heads_fit(self) -> AttentionConfig:
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_heads {self.num_heads} is not a multiple of num_kv_heads {self.num_kv_heads}")
        if self.rotary_dim is not None and self.rotary_dim % 2:
            raise ValueError(f"rotary_dim {self.rotary_dim} is odd; channels are rotated in pairs")
        if self.rotary_dim is not None and self.head_dim is not None and self.rotary_dim > self.head_dim:
            raise ValueError(f"rotary_dim {self.rotary_dim} is larger than head_dim {self.head_dim}")
        return self


class MLPConfig(Section):
    """The gated feed-forward layer."""

    hidden_dim: Positive = 13056
    """Inner width. 13056 makes the 7B model 7.01 B parameters; 11008 would be 6.2 B."""
    activation: Literal["swiglu", "geglu"] = "swiglu"
    """Gate: SiLU (swiglu) or GELU (geglu). Only swiglu can be exported."""


def _size(width: int, layers: int, heads: tuple[int, int, int], hidden: int, vocab: int) -> dict[str, Any]:
    """One row of the table below; heads are (query, key/value, width of one)."""
    return {
        "d_model": width,
        "num_layers": layers,
        "vocab_size": vocab,
        "attention": {"num_heads": heads[0], "num_kv_heads": heads[1], "head_dim": heads[2]},
        "mlp": {"hidden_dim": hidden},
    }


MODEL_SIZES: dict[str, dict[str, Any]] = {
    "havoc_7b": _size(4096, 32, (32, 8, 128), 13056, 65536),  # 7.01 B
    "1b": _size(1792, 24, (14, 7, 128), 4864, 32768),  # 0.98 B
    "300m": _size(1024, 20, (16, 8, 64), 2816, 32768),  # 0.30 B
    "100m": _size(640, 16, (10, 5, 64), 1728, 16384),  # 0.094 B
    "30m": _size(384, 12, (6, 2, 64), 1152, 8192),  # 0.027 B
    "nano": _size(192, 4, (6, 2, 32), 512, 4096),  # 0.0031 B
}
"""Named shapes. Vocabularies follow arXiv:2407.13623; all stay within uint16."""


class ModelConfig(Section):
    """Decoder-only transformer: RMSNorm, RoPE, grouped-query attention, SwiGLU."""

    size: Literal["havoc_7b", "1b", "300m", "100m", "30m", "nano"] = "havoc_7b"
    """Named shape that fills in every field of the shape that is not given."""
    vocab_size: Annotated[Whole, Field(ge=512)] = 65536
    """Rows of the embedding: 256 special ids, 256 bytes, the rest merges."""
    d_model: Positive = 4096
    """Width of the residual stream."""
    num_layers: Positive = 32
    """Blocks."""
    max_seq_len: Positive = 4096
    """Longest context the model promises, in tokens."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """On attention and feed-forward outputs, in training only. 0 where text is seen about once."""
    layer_norm_eps: Annotated[float, Field(gt=0.0)] = 1.0e-6
    """Added to the mean square in every RMSNorm."""
    initializer_range: Annotated[float, Field(gt=0.0)] = 0.02
    """Standard deviation of the first weights; projections into the residual stream get it over sqrt(2 * num_layers)."""
    attention: AttentionConfig = AttentionConfig()
    """Heads and positions."""
    mlp: MLPConfig = MLPConfig()
    """Feed-forward layer."""
    tie_embeddings: bool = False
    """Use the embedding as the output head too. Saves vocab_size * d_model parameters; untied learns better."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_the_named_size(cls, values: Any) -> Any:
        if isinstance(values, str):
            values = {"size": values}
        size = values.get("size", "havoc_7b") if isinstance(values, dict) else None
        if not isinstance(size, str) or size not in MODEL_SIZES:
            return values
        filled: dict[str, Any] = dict(values)
        for key, of_size in MODEL_SIZES[size].items():
            given = values.get(key)
            if isinstance(of_size, dict) and (given is None or isinstance(given, dict)):
                merged = {**of_size, **(given or {})}
                if key == "attention" and given and "num_heads" in given and "head_dim" not in given:
                    merged["head_dim"] = None  # the named width belongs to the named number of heads
                filled[key] = merged
            elif given is None:
                filled[key] = of_size
        return filled

    @model_validator(mode="after")
    def _width_fits(self) -> ModelConfig:
        if self.attention.head_dim is None and self.d_model % self.attention.num_heads:
            raise ValueError(
                f"d_model {self.d_model} is not a multiple of num_heads {self.attention.num_heads}; give head_dim"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim {self.head_dim} is odd; channels are rotated in pairs")
        if (self.attention.rotary_dim or 0) > self.head_dim:
            raise ValueError(f"rotary_dim {self.attention.rotary_dim} is larger than head_dim {self.head_dim}")
        return self

    @property
    def head_dim(self) -> int:
        """Width of one attention head, in channels."""
        return self.attention.head_dim or self.d_model // self.attention.num_heads


class SourceConfig(Section):
    """One place that text comes from."""

    kind: str
    """A file in havoc_data/sources/, or a module of your own with a dot in its name."""
    path: str | None = None
    """Folder or file, for kinds that read one."""
    group: Literal["domain", "general", "dialog"] = "domain"
    """Which share of the mixture it counts towards."""
    name: str | None = None
    """What it is called in reports and weights; null: the last part of the path, or the kind."""
    options: dict[str, Any] = {}
    """What this kind of source alone understands."""


class RulesConfig(Section):
    """What makes a text look like junk: one rule a line, its limit as value; null turns a rule off.

    After Gopher (Rae et al. 2021, arXiv:2112.11446), C4 (Raffel et al. 2020, arXiv:1910.10683) and FineWeb (Penedo et al.
    2024, arXiv:2406.17557), adapted so that formulas, tables and code are no junk.
    """

    too_short: Annotated[Whole, Field(ge=0)] | None = 100
    """Characters a document has at least."""
    long_words: Annotated[float, Field(gt=0.0)] | None = 20.0
    """Mean length at most of the runs of letters, in letters; digits and signs end a run, so a formula or a path counts as
    the words inside it, and each character of a script without blanks between words as one word."""
    few_letters: Fraction | None = 0.7
    """Share of the words at least that are no jumble of signs: four or more, three of them different, no letter or digit."""
    few_stop_words: Annotated[Whole, Field(ge=0)] | None = 2
    """Different frequent words of English, German, French, Spanish, Italian, Dutch or Portuguese at least, in texts of 60
    or more different words that begin with two Latin letters; "if", "in" and "return" of programs are among the frequent."""
    hash_marks: Fraction | None = 0.1
    """Hashtags and ellipses after a letter per word at most; marks of headings and comments, and 1, 2, ... are not counted."""
    bullet_lines: Fraction | None = 0.9
    """Share of lines that begin with a bullet at most, in texts of five lines or more."""
    ellipsis_lines: Fraction | None = 0.3
    """Share of lines at most that break off with an ellipsis after a letter; a series 1 + 2 + ... does not."""
    unfinished_lines: Fraction | None = 0.02
    """Share of lines of prose at least that end with punctuation, in texts of 15 such lines or more. A line of prose has
    six words or more and no digit, operator or LaTeX in it."""
    repeated_lines: Fraction | None = 0.6
    """Share of the characters in lines that occurred before at most; lines without a letter are not counted, such as
    rules and numbers of tables and closing braces."""
    repeated_paragraphs: Fraction | None = 0.6
    """Share of the characters in paragraphs that occurred before at most; those without a letter are not counted."""
    repeated_phrases: Fraction | None = 0.6
    """Share of the words in sequences of ten words that occurred before at most; lines with new numbers or formulas
    are not counted, such as exercises that differ in their numbers alone."""
    frequent_phrase: Fraction | None = 0.3
    """Share of the characters in the most frequent sequence of three words with letters at most; lines as above."""
    menu_lines: Fraction | None = 0.8
    """Share of lines and menu items at most that are one to four words and nothing else, in texts of ten or more."""
    boilerplate: Fraction | None = 0.3
    """Share of lines and sentences at most that speak of cookies, logins, newsletters or rights; or of words at most that
    are filler, where there is lorem ipsum."""
    links: Fraction | None = 0.6
    """Share of the characters in addresses of web pages at most."""
    machine_lines: Fraction | None = 0.5
    """Share of lines at most that are of logs, stack traces or hex dumps, in texts of five lines or more."""
    encoded: Fraction | None = 0.3
    """Share of the characters at most in runs of 32 or more that mix letters and digits, such as base64 and hashes."""


class CleaningConfig(Section):
    """What is done about text that looks like junk, is broken, or holds personal data."""

    domain: Action = "annotate"
    """Rules on domain text: name what fires and keep the text, leave the text out, or do not look."""
    general: Action = "drop"
    """Rules on general text."""
    dialog: Action = "annotate"
    """Rules on dialog."""
    rules: RulesConfig = RulesConfig()
    """The rules and their limits."""
    languages: list[str] = []
    """Languages to keep, as ISO 639-1 codes such as en; a text in another is dropped or annotated as by a rule. Empty:
    languages are not identified."""
    personal_data: Annotated[Literal["report", "mask", "off"], BeforeValidator(_on_or_off)] = "report"
    """E-mail addresses, phone numbers, keys and the like: count them, put words such as [email] in their place, or do not
    look. No special tokens: a text never holds any."""
    mend_encoding: bool = True
    """Detect encodings other than UTF-8 and mend text that was decoded wrongly; characters are never normalised."""

    @property
    def actions(self) -> dict[str, str]:
        """Group -> what its rules do."""
        return {"domain": self.domain, "general": self.general, "dialog": self.dialog}


class DeduplicationConfig(Section):
    """What is done about text that occurs more than once. Equal documents are always left out but for one."""

    domain: Action = "drop"
    """Near-duplicates in domain text: name them and keep them, leave out all but one, or do not look."""
    general: Action = "drop"
    """Near-duplicates in general text."""
    dialog: Action = "annotate"
    """Near-duplicates in dialog; problems that differ in their numbers alone are many and wanted."""
    jaccard: Annotated[float, Field(ge=0.5, le=1.0)] = 0.75
    """Share of common word 5-grams, digits and operators included, from which two documents are near-duplicates."""
    paragraphs: Action = "annotate"
    """Paragraphs of 200 characters or more that occurred in another document: count them, or leave them out."""

    @property
    def actions(self) -> dict[str, str]:
        """Group -> what is done about its near-duplicates."""
        return {"domain": self.domain, "general": self.general, "dialog": self.dialog}


class DecontaminationConfig(Section):
    """What is done about examination questions in the text."""

    action: Action = "drop"
    """Documents that hold an examination question: name them and keep them, leave them out, or do not look."""
    exams: list[str] = []
    """Files of questions (.json, .jsonl, .csv), besides the exam of `evaluation`."""
    overlap: Annotated[float, Field(gt=0.0, le=1.0)] = 0.8
    """Share of a question's words, rare ones counting more and all its numbers among them, that a document must hold in their
    order; a question of fewer than 20 words it must hold whole."""


class DataMixtureConfig(Section):
    """Where text comes from, and in what shares it is learnt."""

    domain_ratio: Fraction = 0.6
    """Share of the learnt tokens from math, stats, engineering and any other folder of the domain."""
    general_ratio: Fraction = 0.3
    """Share from general text."""
    dialog_ratio: Fraction = 0.1
    """Share from dialog."""
    max_sequence_length: Annotated[Whole, Field(ge=8)] = 2048
    """Tokens in a row of a batch."""
    data_dir: str = "data"
    """Folder of the text: one sub-folder per source."""
    sources: list[SourceConfig] | None = None
    """null: every sub-folder of data_dir, or the fallback if there is no such folder."""
    fallback: Literal["package_docs", "dummy"] = "dummy"
    """What is used when there is no text at all: the documentation of installed packages, or random words."""
    missing_group: Literal["renormalize", "error"] = "renormalize"
    """A group without text: share its ratio among the others and say so everywhere, or stop."""
    weights: dict[str, Annotated[float, Field(ge=0.0)]] = {}
    """Shares of sources inside their group; unnamed: by their number of tokens."""
    exclude: list[str] = []
    """Patterns of files to leave out, relative to a source's folder, such as "**/draft_*"."""
    validation_fraction: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.02
    """Share of the documents held out for validation, chosen by their hash; at least 32 KiB a group."""
    packing: Literal["best_fit", "concatenate"] = "best_fit"
    """How documents fill rows: fewest cuts, or one after another."""
    rebuild: Literal["auto", "never"] = "auto"
    """auto: build the store again when text or settings have changed. never: train on the store as it stands."""
    cleaning: CleaningConfig = CleaningConfig()
    """Junk, broken encodings, personal data."""
    deduplication: DeduplicationConfig = DeduplicationConfig()
    """Text that occurs more than once."""
    decontamination: DecontaminationConfig = DecontaminationConfig()
    """Examination questions in the text."""
    allow_repeats: bool = False
    """Whether a source may be learnt more than 40 times over; beyond 16 nothing is gained."""
    store: str | None = None
    """A finished store elsewhere: a folder, or a URL that fsspec reads, such as s3://bucket/store. It is read as it stands."""
    growing: bool = False
    """Whether the text may grow under a run: on resume, a changed store begins a new stage of the run."""
    runner: str = "processes"
    """A file in havoc_data/runners/: what works on the parts of the text. The result is the same with each."""
    runner_options: dict[str, Any] = {}
    """What this runner alone understands."""
    num_workers: Positive | None = None
    """Processes that read and tokenize; null: one per core."""

    @model_validator(mode="after")
    def _ratios_are_shares(self) -> DataMixtureConfig:
        total = self.domain_ratio + self.general_ratio + self.dialog_ratio
        if abs(total - 1.0) > 1e-6:
            raise ValueError(f"domain_ratio + general_ratio + dialog_ratio is {total:g}, and shares must add up to 1")
        return self

    @property
    def ratios(self) -> dict[str, float]:
        """Group -> share of the learnt tokens."""
        return {"domain": self.domain_ratio, "general": self.general_ratio, "dialog": self.dialog_ratio}


class TokenizerConfig(Section):
    """How text becomes ids."""

    kind: Literal["bpe", "sentencepiece", "huggingface"] = "bpe"
    """Byte-level BPE trained on your text; SentencePiece, trained or loaded; or an existing tokenizer.json."""
    path: str | None = None
    """An existing tokenizer.json or SentencePiece .model to use instead of training one."""
    vocab_size: Annotated[Whole, Field(ge=512)] | None = None
    """Ids to train; null: the model's vocab_size."""
    sample_bytes: Annotated[Whole, Field(ge=1024, le=10_000_000_000)] | None = None
    """Text to train on at most, taken in the shares of the mixture; null: 8 KiB for every id, 64 MiB for 8,192 ids. Trainers
    overflow far above 10 GB."""


class MemoryConfig(Section):
    """Parts of a memory preset, one by one; null: as the preset has it."""

    moments: Literal["float32", "bfloat16", "int8"] | None = None
    """AdamW's two moments. bfloat16 and int8 are rounded stochastically, or they would stop moving."""
    gradients: Literal["float32", "bfloat16"] | None = None
    """Sum of the gradients over the micro-steps of an update. bfloat16 is rounded stochastically."""
    gradients_on: Literal["device", "host"] | None = None
    """Where that sum is kept; host for cards under 16 GB, with `memory: stream`."""
    master: Literal["split", "none"] | None = None
    """split: a 16-bit remainder beside each bfloat16 weight, an exact float32 master together. none: bfloat16 alone."""
    rounding: Literal["stochastic", "nearest"] = "stochastic"
    """Of bfloat16 weights without a master and of bfloat16 moments. nearest is refused where small updates would be lost."""
    offload_activations: bool = False
    """Keep the inputs of recomputed blocks in host memory; pays with very long rows."""


class TrackingConfig(Section):
    """Where the numbers of a run are shown besides screen, train.log and metrics.jsonl."""

    trackers: list[str] = ["tensorboard"]
    """Files in havoc_training/trackers/."""
    run_name: str | None = None
    """What the run is called there; null: the name of its folder."""


class EvaluationConfig(Section):
    """What `havoc run` measures when training has ended."""

    exam_problems: Annotated[Whole, Field(ge=0)] = 200
    """Verified problems in the exam; none of their statements occurs in the training text."""
    sample_prompts: list[str] = ["The mean of a sample is", "def ", "What is the derivative of"]
    """Beginnings for the model to continue, shown in the report."""
    sample_tokens: Positive = 80
    """Length of each sample, in tokens."""


class TrainingConfig(Section):
    """A training run. One YAML file is one of these."""

    run_dir: str = "."
    """Base of every folder below that is not absolute; one run at a time."""
    seed: Annotated[Whole, Field(ge=0, lt=2**31)] = 42
    """For Python, numpy, torch, the weights and the order of the text."""
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    """auto: cuda if there is one, else mps, else cpu."""
    threads: Positive | None = None
    """CPU threads; null: OMP_NUM_THREADS, or one per core, or two where cores run two and that is measured to be clearly
    faster. Recorded at the first start and kept on resume."""

    batch_size: Positive = 2
    """Rows per device and micro-step. Lower it when memory runs out."""
    gradient_accumulation_steps: Positive = 16
    """Micro-steps per update; raises the batch without memory."""
    rows_per_step: Positive | None = None
    """Rows per update over all devices; null: batch_size x gradient_accumulation_steps x devices. Kept on resume."""
    max_epochs: Annotated[float, Field(gt=0.0)] = 1.0
    """Passes over the training rows, if max_steps is not given."""
    max_steps: Positive | None = None
    """Updates in the whole run; wins over max_epochs."""

    optimizer: str = "adamw"
    """A file in havoc_training/optimizers/."""
    optimizer_options: dict[str, Any] = {}
    """What this optimizer alone understands."""
    learning_rate: Annotated[float, Field(gt=0.0, lt=1.0)] = 3.0e-4
    """Peak, reached when warm-up ends. A 7B model usually wants 1.0e-4 to 6.0e-4."""
    min_learning_rate: Annotated[float, Field(ge=0.0, lt=1.0)] = 3.0e-5
    """Where the schedule ends."""
    weight_decay: Annotated[float, Field(ge=0.0, lt=10.0)] = 0.1
    """Per step, decoupled, times the current learning rate. Never on norms and biases."""
    decay_embeddings: bool = True
    """Whether weight decay reaches the embedding and the head too."""
    adam_beta1: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    """Decay of the mean of gradients."""
    adam_beta2: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.95
    """Decay of the mean of squared gradients; 0.999 reacts too slowly for language models."""
    adam_epsilon: Annotated[float, Field(gt=0.0)] = 1.0e-8
    """Added to the root of the mean square."""
    max_grad_norm: Annotated[float, Field(ge=0.0)] = 1.0
    """Global gradient norm above which gradients are scaled down; 0: never."""
    warmup_steps: Annotated[Whole, Field(ge=0)] = 2000
    """Updates from near zero to the peak; cut to a tenth of the run if it is longer than the run."""
    lr_scheduler_type: Literal["cosine", "linear", "constant", "wsd"] = "cosine"
    """Way down from the peak. wsd: stay at the peak, then go down linearly in the last decay_fraction."""
    decay_fraction: Annotated[float, Field(gt=0.0, le=1.0)] = 0.2
    """Last part of the run in which wsd goes down."""
    z_loss_weight: Annotated[float, Field(ge=0.0)] = 0.0
    """Weight of the squared log-normaliser (PaLM uses 1e-4), which keeps logits from drifting."""

    use_amp: bool | Literal["auto"] = True
    """Weights and activations in amp_dtype, master weights in float32. auto: where the device is faster that way."""
    amp_dtype: Literal["bfloat16", "float16"] = "bfloat16"
    """bfloat16 needs no loss scaling; float16 is for GPUs without it."""
    compile: Annotated[Literal["auto", "on", "off"], BeforeValidator(_on_or_off)] = "auto"
    """off: nothing is compiled. auto: the attention kernel on a CPU with a C++ compiler, and torch.compile of each block
    on a GPU or when the run is long enough to repay it. on: all that can be."""
    fp8: bool = False
    """Matrix products inside the blocks in 8-bit floats with one scale a tensor, on GPUs that have them (compute capability
    8.9 and newer). Faster, and a little less exact: compare the loss."""
    memory: Literal["auto", "fp32_master", "fp32_master_bf16m", "offload", "stream", "8bit", "bf16_sr"] = "auto"
    """Where weights, gradients and AdamW's state are kept and in what format. auto: the first exact one that fits the
    device and the host: fp32_master, offload, stream, then fp32_master_bf16m. On a GPU, auto also chooses the rows of a
    micro-step; tokens per step stay the same."""
    memory_options: MemoryConfig = MemoryConfig()
    """Parts of the preset, one by one."""
    recompute: Literal["auto", "none", "selective", "full"] = "auto"
    """What is computed again in the backward pass instead of being kept: nothing, norms and activations, or whole blocks.
    auto: the least that fits."""

    checkpoint_dir: str = "checkpoints"
    """Folder of the checkpoints."""
    save_every_n_steps: Positive = 1000
    """Updates between checkpoints."""
    keep_last_n_checkpoints: Positive = 3
    """Step checkpoints kept; best, interrupted and error ones are never deleted."""
    resume_from_checkpoint: str | None = None
    """A checkpoint folder, or auto: the newest valid one, or a fresh start if there is none."""
    eval_every_n_steps: Positive = 500
    """Updates between validations."""
    eval_samples: Positive = 100
    """Batches in a validation; always the same rows."""
    log_every_n_steps: Positive = 10
    """Updates between lines on the screen; metrics.jsonl has every one."""
    log_dir: str = "logs"
    """Folder of train.log, metrics.jsonl, tensorboard/ and report.html."""

    model: ModelConfig = ModelConfig()
    """The network."""
    data: DataMixtureConfig = DataMixtureConfig()
    """The text."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    """The vocabulary."""
    tracking: TrackingConfig = TrackingConfig()
    """Where numbers are shown."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """What is measured at the end."""

    @model_validator(mode="after")
    def _parts_fit(self) -> TrainingConfig:
        if self.min_learning_rate > self.learning_rate:
            raise ValueError(
                f"min_learning_rate {self.min_learning_rate:g} is above learning_rate {self.learning_rate:g}"
            )
        if self.data.max_sequence_length > self.model.max_seq_len:
            raise ValueError(
                f"data.max_sequence_length {self.data.max_sequence_length} is above model.max_seq_len {self.model.max_seq_len}"
            )
        if (self.tokenizer.vocab_size or 0) > self.model.vocab_size:
            raise ValueError(
                f"tokenizer.vocab_size {self.tokenizer.vocab_size} is above model.vocab_size {self.model.vocab_size}"
            )
        return self
