"""The application: every route of the API, behind the gate."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from havoc_inference.server import chat_completions, completions, embeddings, tokens
from havoc_inference.server.errors import ApiError, from_validation, json_response, translated
from havoc_inference.server.gate import Door, Gate
from havoc_inference.server.metrics import CONTENT_TYPE, Metrics
from havoc_inference.server.page_routes import page_router
from havoc_inference.server.protocol import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    EmbeddingRequest,
    TokenizeRequest,
)
from havoc_inference.server.serving import Serving

_ERROR = {
    "description": "An error in OpenAI's shape.",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["error"],
                "properties": {
                    "error": {
                        "type": "object",
                        "required": ["message", "type", "param", "code"],
                        "properties": {
                            "message": {"type": "string"},
                            "type": {"type": "string"},
                            "param": {"type": ["string", "null"]},
                            "code": {"type": ["string", "null"]},
                        },
                    }
                },
            }
        }
    },
}


class App:
    """What uvicorn runs (ASGI).

    Args:
        serving: the model; its service is started and closed with the application.
        door: who comes in.
        origins: web origins whose pages may ask (CORS); none: no page but the server's own.
        grace_s: for answers that run when the application is closed.
    """

    def __init__(self, serving: Serving, *, door: Door, origins: Sequence[str] = (), grace_s: float = 30.0) -> None:
        self.metrics: Metrics = serving.metrics
        self.name = serving.name
        api = _Api(
            title="HAVOC",
            summary="OpenAI's routes for one model.",
            docs_url=None,  # these pages would load scripts from elsewhere
            redoc_url=None,
            lifespan=_lifespan(serving, grace_s),
            redirect_slashes=False,
        )
        _add_generation(api, serving)
        _add_model(api, serving)
        _add_operation(api, serving)
        api.include_router(page_router())
        api.add_exception_handler(ApiError, _api_error)
        api.add_exception_handler(RequestValidationError, _validation_error)
        api.add_exception_handler(HTTPException, _http_error)
        api.add_exception_handler(Exception, _failure)  # raised again by Starlette, for the gate to write down
        gate: ASGIApp = Gate(api, door=door, limits=serving.limits, metrics=serving.metrics)
        if origins:  # outside the gate: a browser asks for permission without the key
            gate = CORSMiddleware(gate, allow_origins=origins, allow_methods=["*"], allow_headers=["*"])
        self._outermost = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the life of the application."""
        await self._outermost(scope, receive, send)


class _Api(FastAPI):
    """Its description says what is answered: FastAPI's own 422 never is."""

    def openapi(self) -> dict[str, Any]:
        schema = super().openapi()
        for methods in schema["paths"].values():
            for operation in methods.values():
                operation["responses"].pop("422", None)
                operation["responses"]["default"] = _ERROR
        for name in ("HTTPValidationError", "ValidationError"):
            schema.get("components", {}).get("schemas", {}).pop(name, None)
        return schema


def _lifespan(serving: Serving, grace_s: float) -> Any:
    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncGenerator[None, None]:
        serving.service.start()
        try:
            yield
        finally:
            await serving.service.close(grace_s=grace_s)

    def begin(api: FastAPI) -> AbstractAsyncContextManager[None]:
        return life(api)

    return begin


def _add_generation(api: FastAPI, serving: Serving) -> None:
    @api.post("/v1/completions", response_class=Response)
    async def create_completion(body: CompletionRequest, request: Request) -> Response:
        """A text goes on."""
        return await completions.answer_completion(serving, body, request)

    @api.post("/v1/chat/completions", response_class=Response)
    async def create_chat_completion(body: ChatRequest, request: Request) -> Response:
        """The next message of a dialog."""
        return await chat_completions.answer_chat(serving, body, request)

    @api.post("/v1/embeddings", response_class=Response)
    async def create_embedding(body: EmbeddingRequest, request: Request) -> Response:
        """The mean of a text's last hidden states."""
        return json_response(await embeddings.embed(serving, body, request))


def _add_model(api: FastAPI, serving: Serving) -> None:
    @api.get("/v1/models", response_class=Response)
    async def list_models() -> Response:
        """The model that is served."""
        return json_response({"object": "list", "data": [serving.describe()]})

    @api.get("/v1/models/{model:path}", response_class=Response)
    async def retrieve_model(model: str) -> Response:
        """The model, if it has this name."""
        serving.require(model)
        return json_response(serving.describe())

    @api.post("/tokenize", response_class=Response)
    async def tokenize(body: TokenizeRequest) -> Response:
        """Ids of a text or a dialog."""
        return json_response(await tokens.tokenize(serving, body))

    @api.post("/detokenize", response_class=Response)
    async def detokenize(body: DetokenizeRequest) -> Response:
        """The text of ids."""
        return json_response(tokens.detokenize(serving, body))

    @api.get("/tokenizer_info", response_class=Response)
    async def tokenizer_info() -> Response:
        """Special tokens and the format of dialogs."""
        return json_response(tokens.tokenizer_info(serving))


def _add_operation(api: FastAPI, serving: Serving) -> None:
    @api.get("/health", response_class=Response)
    async def health() -> Response:
        """Whether the server answers; needs no key."""
        return json_response({"status": "ok"})

    @api.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Counters for Prometheus."""
        return Response(serving.metrics.text(), headers={"content-type": CONTENT_TYPE})


async def _api_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError), "registered for these only"
    return error.response()


async def _validation_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError), "registered for these only"
    return from_validation(error.errors()).response()


async def _failure(_: Request, error: Exception) -> Response:
    return translated(error).response()


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException), "registered for these only"
    if error.status_code == 404:
        return ApiError(404, f"There is no route {request.method} of this path.", code="unknown_url").response()
    headers = dict(error.headers or {})
    return ApiError(error.status_code, str(error.detail).rstrip(".") + ".", headers=headers).response()
