"""The HTTP responses of the local hub."""

import base64
import hashlib
import json
import re
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast
from urllib.parse import unquote, urlsplit

LFS = (".safetensors", ".bin")
Files = dict[str, bytes]


def oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()  # noqa: S324


@dataclass
class Repository:
    private: bool = False
    gated: bool = False
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Files] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, branch: str, files: Files, message: str) -> str:
        name = oid(json.dumps([len(self.commits), message, sorted(files)]).encode())
        self.branches[branch], self.commits[name] = name, files
        self.messages.append(message)
        return name


@dataclass
class Failure:
    """What goes wrong with requests whose "METHOD path" matches.

    Attributes:
        pattern: Regular expression.
        status: Of the answer, which is empty.
        cut: Answer properly, but break off after half of the body.
        times: How often; always if negative.
        seconds: To wait before the answer.
    """

    pattern: str
    status: int = 500
    cut: bool = False
    times: int = -1
    seconds: float = 0.0


class Contents:
    """The content of a hub, and the requests it received.

    Attributes:
        repositories: By "owner/name".
        tokens: The owner of each token, and whether it may write.
        requests: "METHOD path" of each, in order.
        failures: What is to go wrong.
    """

    port: int
    address: str

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.tokens = {"hf_writer": ("someone", True), "hf_reader": ("someone", False)}
        self.requests: list[str] = []
        self.failures: list[Failure] = []

    def add(
        self, name: str, files: Files, *, private: bool = False, gated: bool = False
    ) -> Repository:
        repository = self.repositories[name] = Repository(private, gated)
        repository.commit("main", files, "first")
        return repository

    def files(self, name: str, branch: str = "main") -> Files:
        repository = self.repositories[name]
        return repository.commits[repository.branches[branch]]


class Server(ThreadingHTTPServer):
    hub: Contents
    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.connections: list[socket.socket] = []

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self.connections.append(connection)
        return connection, address

    def handle_error(self, *_: Any) -> None:
        """A client that goes away is no error."""


class RefusedError(Exception):
    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet for head and body: two wait for each other's acknowledgement
    disable_nagle_algorithm = True

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.handle_request()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

    @property
    def hub(self) -> Contents:
        return cast(Server, self.server).hub

    def handle_request(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length) if length else self.chunks()
        path = unquote(urlsplit(self.path).path)
        request = f"{self.command} {path}"
        if path != "/api/agent-harnesses":  # a request about the client, not for a model
            self.hub.requests.append(request)
        self.cut = False
        try:
            for failure in self.hub.failures:
                if failure.times and re.search(failure.pattern, request):
                    failure.times -= 1
                    self.cut = failure.cut
                    threading.Event().wait(failure.seconds)
                    if not failure.cut:
                        return self.answer(failure.status, b"", {})
                    break
            self.route(path)
        except RefusedError as refused:
            names = ("X-Error-Code", "X-Error-Message")
            headers = dict(zip(names, (refused.code, refused.message), strict=True))
            body = json.dumps({"error": refused.message}).encode()
            self.answer(refused.status, body, {n: v for n, v in headers.items() if v})

    def chunks(self) -> bytes:
        body = b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        return body

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if self.cut else body)
        self.close_connection = self.close_connection or self.cut

    def json(self, value: Any) -> None:
        self.answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def route(self, path: str) -> None:
        repo = r"(?P<repo>[^/]+/[^/]+)"
        for pattern, handler in (
            (r"GET /api/models/" + repo + r"(/revision/(?P<revision>.+))?", self.info),
            (r"GET /api/models/" + repo + r"/tree/(?P<revision>.+)", self.tree),
            (r"(GET|HEAD) /" + repo + r"/resolve/(?P<revision>[^/]+)/(?P<file>.+)", self.resolve),
            (r"(GET|HEAD) /cdn/(?P<blob>\w+)", self.download),
            (r"POST /api/repos/create", self.create),
            (r"POST /api/models/" + repo + r"/branch/(?P<branch>.+)", self.branch),
            (r"POST /api/models/" + repo + r"/preupload/(?P<branch>.+)", self.preupload),
            (r"POST /" + repo + r"\.git/info/lfs/objects/batch", self.batch),
            (r"PUT /upload/(?P<blob>\w+)", self.upload),
            (r"POST /api/models/" + repo + r"/commit/(?P<branch>.+)", self.commit),
            (r"POST /api/validate-yaml", self.validate),
        ):
            if match := re.fullmatch(pattern, f"{self.command} {path}"):
                handler(**match.groupdict())
                return
        raise RefusedError(404, message=f"no such page: {path}")

    def user(self) -> tuple[str, bool]:
        authorization = self.headers.get("Authorization")
        if authorization is None:
            return "", False
        known = self.hub.tokens.get(authorization.removeprefix("Bearer "))
        if known is None:
            raise RefusedError(401, message="Invalid credentials in Authorization header")
        return known

    def repository(self, repo: str, *, write: bool = False) -> Repository:
        user, may_write = self.user()
        found = self.hub.repositories.get(repo)
        own = user == repo.split("/")[0]
        if found is None or (found.private and not own):
            raise RefusedError(404 if user else 401, "RepoNotFound", "Repository not found")
        if write and not (own and may_write):
            raise RefusedError(403, message="No rights to write to this repository")
        return found

    def snapshot(self, repo: str, revision: str | None) -> tuple[str, Files]:
        repository = self.repository(repo)
        name = repository.branches.get(revision or "main", revision or "")
        if name not in repository.commits:
            raise RefusedError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return name, repository.commits[name]

    def info(self, repo: str, revision: str | None) -> None:
        name, files = self.snapshot(repo, revision)
        self.json(
            {
                "id": repo,
                "modelId": repo,
                "sha": name,
                "private": self.hub.repositories[repo].private,
                "gated": "auto" if self.hub.repositories[repo].gated else False,
                "tags": [],
                "siblings": [{"rfilename": path} for path in files],
            }
        )

    def tree(self, repo: str, revision: str) -> None:
        entries: list[dict[str, Any]] = []
        for path, content in self.snapshot(repo, revision)[1].items():
            entry = {"type": "file", "path": path, "size": len(content), "oid": oid(content)}
            if path.endswith(LFS):
                digest = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 134}
            entries.append(entry)
        self.json(entries)

    def resolve(self, repo: str, revision: str, file: str) -> None:
        name, files = self.snapshot(repo, revision)
        if self.hub.repositories[repo].gated:
            raise RefusedError(403 if self.user()[0] else 401, "GatedRepo", "Access is restricted")
        if file not in files:
            raise RefusedError(404, "EntryNotFound", "Entry not found")
        content, headers = files[file], {"X-Repo-Commit": name}
        if not file.endswith(LFS):
            return self.answer(200, content, headers | {"ETag": f'"{oid(content)}"'})
        digest = hashlib.sha256(content).hexdigest()
        self.hub.blobs[digest] = content
        headers |= {
            "Location": f"http://localhost:{self.hub.port}/cdn/{digest}",
            "X-Linked-Etag": f'"{digest}"',
            "X-Linked-Size": str(len(content)),
        }
        return self.answer(302, b"", headers)

    def download(self, blob: str) -> None:
        if "Authorization" in self.headers:
            raise RefusedError(400, message="a token has left the hub")
        self.answer(200, self.hub.blobs[blob], {"ETag": f'"{blob}"'})

    def create(self) -> None:
        request = json.loads(self.body)
        user, may_write = self.user()
        owner, repo = request["organization"], f"{request['organization']}/{request['name']}"
        if not user:
            raise RefusedError(401, message="Invalid username or password")
        if owner != user or not may_write:
            raise RefusedError(403, message=f"No rights to create models under {owner}")
        if repo in self.hub.repositories:
            raise RefusedError(409, message="You already created this model repo")
        private = request.get("visibility") == "private"
        self.hub.add(repo, {".gitattributes": b"*.safetensors lfs"}, private=private)
        self.json({"url": f"{self.hub.address}/{repo}", "name": repo})

    def branch(self, repo: str, branch: str) -> None:
        repository = self.repository(repo, write=True)
        if branch in repository.branches:
            raise RefusedError(409, message="Reference already exists")
        repository.branches[branch] = repository.branches["main"]
        self.json({})

    def preupload(self, repo: str, branch: str) -> None:
        repository = self.repository(repo, write=True)
        files = repository.commits[repository.branches[branch]]
        self.json(
            {
                "files": [
                    {
                        "path": (path := entry["path"]),
                        "uploadMode": "lfs" if path.endswith(LFS) else "regular",
                        "shouldIgnore": False,
                        "oid": oid(files[path]) if path in files else None,
                    }
                    for entry in json.loads(self.body)["files"]
                ]
            }
        )

    def batch(self, repo: str) -> None:
        self.repository(repo, write=True)
        objects = [
            {
                **entry,
                "actions": {"upload": {"href": f"{self.hub.address}/upload/{entry['oid']}"}},
            }
            for entry in json.loads(self.body)["objects"]
        ]
        self.json({"transfer": "basic", "objects": objects})

    def upload(self, blob: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != blob:
            raise RefusedError(400, message="the content is not what its name says")
        self.hub.blobs[blob] = self.body
        self.json({})

    def commit(self, repo: str, branch: str) -> None:
        repository = self.repository(repo, write=True)
        files = dict(repository.commits[repository.branches[branch]])
        message = ""
        for line in self.body.decode().splitlines():
            item = json.loads(line)
            value = item["value"]
            match item["key"]:
                case "header":
                    message = value["summary"]
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.hub.blobs[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
        name = repository.commit(branch, files, message)
        address = f"{self.hub.address}/{repo}/commit/{name}"
        self.json({"success": True, "commitOid": name, "commitUrl": address})

    def validate(self) -> None:
        content = json.loads(self.body)["content"]
        if "license: [" in content:
            errors = [{"message": '"license" must be a string'}]
            body = json.dumps({"errors": errors, "warnings": []}).encode()
            return self.answer(400, body, {})
        return self.json({"errors": [], "warnings": []})
