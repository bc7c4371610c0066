"""The addresses of the server: what can be asked, and what is answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from coverslip.runtime import package_versions
from coverslip.serve.answers import Explanation, Health, ModelBody, ModelsBody, Prediction, Predictions, Problem, RefusalBody, Timing
from coverslip.serve.guard import Guard, is_open
from coverslip.serve.metrics import CONTENT_TYPE, Counting
from coverslip.serve.page import page_files
from coverslip.serve.refusals import Refusal, RefusalResponse, answer_refusal
from coverslip.serve.service import Service
from coverslip.serve.uploads import FIELD

ModelName = Annotated[str | None, Query(description="The name of the model; needed where several are served.", max_length=200)]

DESCRIPTION = """Scores images with a trained classifier. Files are sent as parts `images` of a multipart form, one a sample; where the
model looks at several channels that are files of their own, one a channel, named `<sample>_<channel>.<ending>`."""

_WHY = {
    400: "The body is no multipart form, or is damaged.",
    401: "The token is missing or wrong.",
    404: "No model of this name.",
    405: "Another method is expected.",
    408: "The request did not arrive in time.",
    413: "More bytes or images than one request may hold.",
    415: "No multipart form.",
    422: "No image could be used, or a parameter is wrong.",
    429: "Too much waits already; try again soon.",
    503: "The models are not open yet, or the work was not done in time.",
}
_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": [FIELD],
                "properties": {FIELD: {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}}},
            }
        }
    },
}


def _why(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": RefusalBody, "description": _WHY[status]} for status in statuses}


def build_app(service: Service, token: str | None, hosts: Iterable[str] = (), when_opened: Callable[[], None] = lambda: None) -> FastAPI:
    """The application of a service.

    Args:
        service: what does the work.
        token: what requests must carry; None asks for none.
        hosts: names beside those of the loopback under which it may be asked without a token.
        when_opened: called from another thread once the models are open, or one could not be opened.
    """

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        service.start(when_opened)
        yield
        await asyncio.to_thread(service.close)

    app = FastAPI(
        title="coverslip", version=package_versions().get("coverslip", "0"), description=DESCRIPTION,
        docs_url=None, redoc_url=None, lifespan=lifespan,
        exception_handlers={
            Refusal: answer_refusal, HTTPException: _answer_http, RequestValidationError: _answer_invalid, Exception: _answer_mistake,
        },
    )  # fmt: skip
    if token is not None:
        _document_token(app)
    _add_work(app, service)
    _add_facts(app, service)
    _add_page(app)
    app.add_middleware(Guard, token=token, hosts=hosts)
    app.add_middleware(Counting, metrics=service.metrics, paths=frozenset(route.path for route in app.routes if hasattr(route, "path")))
    return app


def _add_work(app: FastAPI, service: Service) -> None:
    @app.post(
        "/predict", response_model=Predictions, responses=_why(400, 401, 404, 408, 413, 415, 422, 429, 503),
        openapi_extra={"requestBody": _BODY},
    )  # fmt: skip
    async def predict(
        request: Request,
        model: ModelName = None,
        thumbnails: Annotated[bool, Query(description="Whether small pictures of what the network sees come back.")] = False,
    ) -> Response:
        """Score images.

        An image that cannot be read has its reason in `error`; the request is refused (422) when none can be read.
        """
        began = time.perf_counter()
        served = service.find(model)
        async with service.uploads.files(request) as parts:
            received = time.perf_counter()
            samples = served.samples(parts)
            outcomes = await service.outcomes(request, served, samples, thumbnails=thumbnails)
        predictions = served.predictions(samples, outcomes)
        _refuse_if_none(predictions)
        timing = Timing(upload=round(received - began, 4), work=round(time.perf_counter() - received, 4))
        answer = Predictions(model=served.name, predictions=predictions, timing=timing)
        return Response(answer.model_dump_json(), media_type="application/json")

    @app.post(
        "/explain", response_model=Explanation, responses=_why(400, 401, 404, 408, 413, 415, 422, 429, 503),
        openapi_extra={"requestBody": _BODY},
    )  # fmt: skip
    async def explain(
        request: Request,
        model: ModelName = None,
        label: Annotated[str | None, Query(description="The class; the most probable one when not given.", max_length=200)] = None,
    ) -> Response:
        """Show where in one image the model saw a class."""
        served = service.find(model)
        if label is not None and label not in served.model.classes:
            raise Refusal(422, f"no class {label[:100]!r}; the model knows: {', '.join(served.model.classes)}")
        async with service.uploads.files(request) as parts:
            samples = served.samples(parts)
            if len(samples) != 1:
                raise Refusal(422, f"{len(samples)} images came; one at a time is explained")
            if samples[0].problem:
                raise Refusal(422, samples[0].problem, [Problem(image=samples[0].name, reason=samples[0].problem)])
            answer = await service.explain(served, samples[0], label)
        return Response(answer.model_dump_json(), media_type="application/json")


def _refuse_if_none(predictions: list[Prediction]) -> None:
    """Refuse a request of which no image could be read."""
    problems = [Problem(image=one.image, reason=one.error) for one in predictions if one.error is not None]
    if len(problems) == len(predictions):
        shown = problems[0].reason if len(problems) == 1 else f"none of {len(problems)} images can be used"
        raise Refusal(422, shown, problems)


def _add_facts(app: FastAPI, service: Service) -> None:
    @app.get("/models", responses=_why(401))
    async def models() -> ModelsBody:
        """The names of the models that are served."""
        return ModelsBody(models=service.models.names)

    @app.get("/model", responses=_why(401, 404, 422, 503))
    async def model(model: ModelName = None) -> ModelBody:
        """A model: its classes, thresholds, channels and card."""
        return service.find(model).body

    @app.get("/health", response_model=Health, responses={503: {"model": Health, "description": "Not ready."}})
    async def health() -> Response:
        """Whether the server can be asked: 503 until all models are open."""
        status: Literal["starting", "ready", "stopping"] = "stopping" if service.stopping else "ready" if service.ready else "starting"
        return JSONResponse(Health(status=status).model_dump(), 200 if status == "ready" else 503)

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **_why(401)})
    async def metrics() -> Response:
        """Numbers for Prometheus."""
        return Response(service.metrics.text(), headers={"content-type": CONTENT_TYPE})


def _add_page(app: FastAPI) -> None:
    """Each file of the page at an address of its own: no path is looked up on the disk."""
    for address, content, kind in page_files():

        async def send(content: bytes = content, kind: str = kind) -> Response:
            return Response(content, media_type=kind)

        app.add_route(address, _without_parameters(send), include_in_schema=False)


def _without_parameters(send: Callable[[], Any]) -> Callable[[Request], Any]:
    async def answer(_request: Request) -> Response:
        response: Response = await send()
        return response

    return answer


def _document_token(app: FastAPI) -> None:
    """Say in the OpenAPI document that a token is asked for."""
    build = app.openapi

    def openapi() -> dict[str, Any]:
        document = build()
        document.setdefault("components", {})["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        for path, item in document["paths"].items():
            for operation in item.values():
                operation["security"] = [] if is_open(path) else [{"token": []}]
        return document

    app.openapi = openapi  # type: ignore[method-assign]


async def _answer_http(_request: Request, error: Exception) -> RefusalResponse:
    assert isinstance(error, HTTPException)
    return RefusalResponse(Refusal(error.status_code, str(error.detail), headers=error.headers))


async def _answer_invalid(_request: Request, error: Exception) -> RefusalResponse:
    assert isinstance(error, RequestValidationError)
    told = [f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors()]
    return RefusalResponse(Refusal(422, "; ".join(told)))


async def _answer_mistake(_request: Request, _error: Exception) -> RefusalResponse:
    return RefusalResponse(Refusal(500, "the server made a mistake; its log says which"))
