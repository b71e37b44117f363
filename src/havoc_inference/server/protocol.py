"""What a request may say. A field that is not here is refused by name, as OpenAI refuses it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue


def _unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("it holds half of a surrogate pair, which is no character") from None
    return text


Text = Annotated[str, AfterValidator(_unicode)]
"""Text that can be written down: JSON can spell what Unicode does not have."""

# A list of millions of wrong elements must not become millions of findings: it ends with the first, and has an end.
TokenIds = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(max_length=2**20, fail_fast=True)]
"""Ids of tokens."""

Texts = Annotated[list[Text], Field(max_length=2048, fail_fast=True)]
"""Several texts."""

ManyTokenIds = Annotated[list[TokenIds], Field(max_length=2048, fail_fast=True)]
"""Ids of several texts."""

Ignored = Annotated[list[JsonValue], Field(max_length=2048)]
"""What is only looked at to be refused, or not at all."""

MAX_TOP = 20
"""Most probable tokens that can be had beside each token."""


class Body(BaseModel):
    """A request: of the right types, and with known fields only."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


class StreamOptions(Body):
    """What a stream says besides the text."""

    include_usage: bool = False
    """A last chunk with the number of tokens."""
    include_obfuscation: bool = False
    """Taken and without effect: this server does not pad its events."""


class Sampled(Body):
    """Fields that completions and chat share."""

    model: Text | None = None
    """Name of the model, as `/v1/models` gives it; left out: the one that is served."""
    temperature: float | None = Field(None, ge=0.0, le=2.0, allow_inf_nan=False)
    """0: always the most probable token. Default 1."""
    top_p: float | None = Field(None, gt=0.0, le=1.0, allow_inf_nan=False)
    """Only the smallest set of tokens that holds this probability. Default 1: all."""
    n: int | None = Field(None, ge=1, le=128)
    """Answers to each prompt. Default 1."""
    stop: Text | Annotated[list[Text], Field(max_length=16, fail_fast=True)] | None = None
    """Texts that end the answer; neither they nor what follows is part of it."""
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    """The same seed gives the same answer to the same request. Left out: another one each time."""
    presence_penalty: float | None = Field(None, ge=-2.0, le=2.0, allow_inf_nan=False)
    """Subtracted from the logits of tokens that the answer holds already."""
    frequency_penalty: float | None = Field(None, ge=-2.0, le=2.0, allow_inf_nan=False)
    """The same, times how often it holds them."""
    logit_bias: dict[str, Annotated[float, Field(ge=-100.0, le=100.0, allow_inf_nan=False)]] | None = Field(
        None, max_length=4096
    )
    """Token id, written as text -> what is added to its logit; -100 bans it."""
    max_tokens: int | None = Field(None, ge=0)
    """Tokens of the answer at most."""
    stream: bool | None = None
    """Send the answer as it comes, in server-sent events."""
    stream_options: StreamOptions | None = None
    """Only with `stream`."""
    user: Text | None = None
    """Taken and without effect."""
    top_k: int | None = Field(None, ge=-1)
    """Only the k most probable tokens; 0 and -1: all. Not of OpenAI."""
    min_p: float | None = Field(None, ge=0.0, le=1.0, allow_inf_nan=False)
    """Only tokens with this share of the most probable one's probability. Not of OpenAI."""
    repetition_penalty: float | None = Field(None, ge=0.01, le=100.0, allow_inf_nan=False)
    """Above 1: tokens that occurred, prompt included, become less probable. Not of OpenAI."""
    ignore_eos: bool | None = None
    """Go on where the model would end, for measurements. Not of OpenAI."""
    return_tokens_as_token_ids: bool | None = None
    """Write tokens in `logprobs` as `token_id:N`. Not of OpenAI."""


class CompletionRequest(Sampled):
    """`POST /v1/completions`."""

    prompt: Text | Texts | TokenIds | ManyTokenIds | None = None
    """Text to go on, or ids of tokens, or several of one kind. Text has the beginning-of-text token put before it, ids
    are taken as they are. Left out: a new document."""
    echo: bool | None = None
    """Give the prompt back before the answer, as it was sent."""
    logprobs: int | None = Field(None, ge=0, le=MAX_TOP)
    """Log-probabilities of the tokens, and of so many of the most probable ones beside each."""
    best_of: int | None = None
    """Only as large as `n`: answers are not ranked."""
    suffix: Text | None = None
    """Refused: the model writes what follows, not what comes between."""


class TextPart(Body):
    """A part of a message."""

    type: Literal["text"]
    text: Text


class Message(Body):
    """A message of a dialog."""

    role: Literal["system", "developer", "user", "assistant"]
    """developer is another word for system."""
    content: Text | Annotated[list[TextPart], Field(max_length=2048, fail_fast=True)]
    name: Text | None = None
    """Taken and without effect."""
    refusal: Text | None = None
    """Taken and without effect, as the next ones are: clients send answers back as they came."""
    annotations: Ignored | None = None
    audio: None = None
    function_call: None = None
    tool_calls: Annotated[list[JsonValue], Field(max_length=0)] | None = None


Messages = Annotated[list[Message], Field(min_length=1, max_length=2048, fail_fast=True)]
"""A dialog."""


class JsonSchema(Body):
    """A schema that the answer must fit."""

    name: Text | None = None
    """Taken and without effect, as the description is."""
    description: Text | None = None
    schema_: dict[str, JsonValue] = Field(alias="schema")
    """The JSON schema; of the common keywords."""
    strict: bool | None = None
    """Taken and without effect: an answer always fits."""


class ResponseFormat(Body):
    """What an answer looks like."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None
    """Only with type `json_schema`."""


class ChatRequest(Sampled):
    """`POST /v1/chat/completions`."""

    messages: Messages
    """The dialog so far."""
    max_completion_tokens: int | None = Field(None, ge=1)
    """Tokens of the answer at most; `max_tokens` is the old word. Left out: to the end of the context."""
    logprobs: bool | None = None
    """Log-probabilities of the tokens of the answer."""
    top_logprobs: int | None = Field(None, ge=0, le=MAX_TOP)
    """And of so many of the most probable ones beside each; only with `logprobs`."""
    response_format: ResponseFormat | None = None
    """An answer that ends by itself is then JSON: any object, or what fits the schema. Whether it is true is another matter."""
    tools: Ignored | None = None
    """Refused unless empty: the models of HAVOC call none."""
    tool_choice: JsonValue = None
    """Only "none" or "auto"."""
    functions: Ignored | None = None
    """Refused unless empty."""
    function_call: JsonValue = None
    """Only "none" or "auto"."""
    modalities: Texts | None = None
    """Only ["text"]."""
    parallel_tool_calls: bool | None = None
    """Taken and without effect: no tools are called."""
    metadata: dict[str, str] | None = None
    """Taken and without effect, as the next four are."""
    store: Literal[False] | None = None
    """Nothing is kept."""
    service_tier: Text | None = None
    safety_identifier: Text | None = None
    prompt_cache_key: Text | None = None


class EmbeddingRequest(Body):
    """`POST /v1/embeddings`."""

    input: Text | Texts | TokenIds | ManyTokenIds
    """Text, or ids of tokens, or several of one kind."""
    model: Text | None = None
    """Name of the model; left out: the one that is served."""
    encoding_format: Literal["float", "base64"] | None = None
    """base64: little-endian float32."""
    dimensions: int | None = Field(None, ge=1)
    """Only the model's own width."""
    user: Text | None = None
    """Taken and without effect."""


class TokenizeRequest(Body):
    """`POST /tokenize`: a text or a dialog."""

    prompt: Text | None = None
    messages: Messages | None = None
    add_special_tokens: bool = True
    """Put the beginning-of-text token before a text. A dialog always has its own."""
    model: Text | None = None


class DetokenizeRequest(Body):
    """`POST /detokenize`."""

    tokens: TokenIds
    model: Text | None = None


Json = dict[str, Any]
"""A JSON object that goes out."""
