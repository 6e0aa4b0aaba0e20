"""Who may talk to the server, decided before anything else looks at a request.

On loopback, the danger is another web page in the same browser: the Host header must be this machine's (against DNS
rebinding) and requests that change something must come from this page. Beyond loopback, everything but the page's own
files needs the token.
"""

import re
import secrets
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from finescale.web.assets import STATIC

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def problem(status: int, sentence: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An error as every client gets it: JSON with one sentence."""
    return JSONResponse({"error": sentence}, status, headers)


class Guard:
    """ASGI middleware: checks Host, Origin and token, and adds the protective headers to every reply.

    Args:
        app: what is protected.
        token: required with every request but those for the page's own files; None: not required.
        hosts: names in the Host header that are answered, in lower case, at any port (of tunnels); None: any.
        port: the server's, part of the cookie's name because browsers share cookies between ports.
    """

    def __init__(self, app: ASGIApp, *, token: str | None, hosts: frozenset[str] | None, port: int) -> None:
        self.app = app
        self.token = token
        self.hosts = hosts
        self.cookie = f"finescale-{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        refusal = self._refusal(scope)
        await (refusal or self.app)(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        """What is answered instead, or None when the request may pass."""
        headers = Headers(scope=scope)
        host = headers.get("host", "").lower()
        if self.hosts is not None and re.sub(r":\d*$", "", host) not in self.hosts:
            return problem(403, "This server answers only to its own address on this machine.")
        if scope["method"] not in SAFE_METHODS and not self._same_origin(headers, host):
            return problem(403, "Requests from other web pages are not accepted.")
        if self.token is None or scope["path"].startswith("/static/"):
            return None
        return self._without_token(scope, headers)

    @staticmethod
    def _same_origin(headers: Headers, host: str) -> bool:
        """Scripts send neither header; browsers send at least one with every request that changes something."""
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return False
        origin = headers.get("origin")
        try:
            return origin is None or urlsplit(origin).netloc.lower() == host
        except ValueError:
            return False

    def _without_token(self, scope: Scope, headers: Headers) -> Response | None:
        """None when the request carries the token; else the way to give it."""
        scheme, _, credentials = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(credentials.strip()):
            return None
        given = QueryParams(scope["query_string"]).get("token")
        given = given and given.strip()  # pasted
        page = scope["path"] == "/" and scope["method"] == "GET"
        if page and given is not None and self._is_token(given):  # the link that was printed: remember it, hide it
            reply = RedirectResponse("/", 303)
            secure = scope["scheme"] == "https"  # also by what a proxy on this machine says
            reply.set_cookie(self.cookie, given, httponly=True, samesite="lax", secure=secure, max_age=30 * 86400)
            return reply
        if self._is_token(HTTPConnection(scope).cookies.get(self.cookie, "")):
            return None
        if scope["path"] == "/" and "text/html" in headers.get("accept", ""):
            form = (STATIC / "token.html").read_text("utf-8")
            return HTMLResponse(form if given is None else form.replace(" hidden>", ">"), 401)
        return problem(401, "A token is required: send 'Authorization: Bearer TOKEN'.", {"WWW-Authenticate": "Bearer"})

    def _is_token(self, given: str) -> bool:
        return self.token is not None and secrets.compare_digest(given.encode(), self.token.encode())
