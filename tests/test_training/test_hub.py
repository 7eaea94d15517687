"""Pushing to the hub, which a server here plays."""

import json
import threading
from argparse import Namespace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

import qlora
from arguments.declare import ArgumentsError
from arguments.parser import parse


def refusal(make_args, *argv: str) -> str:
    with pytest.raises(ArgumentsError) as refused:
        parse(["--use_cpu", *argv])
    return str(refused.value)


@pytest.fixture
def hub(monkeypatch):
    """A hub of one repository on this machine; `hub.status` is what it answers, `hub.requests` what it was asked."""
    from huggingface_hub import constants

    state = Namespace(status=200, requests=[], files={})

    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or self.chunks()
            state.requests.append((self.path, self.headers.get("Authorization"), body))
            reply = {"id": "me/out", "url": f"{constants.ENDPOINT}/me/out", "errors": [], "warnings": []}
            reply |= {"commitOid": "0" * 40, "commitUrl": f"{constants.ENDPOINT}/me/out/commit/0"}
            if "preupload" in self.path:
                names = [file["path"] for file in json.loads(body)["files"]]
                reply["files"] = [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]
            content = json.dumps(reply).encode()
            self.send_response(state.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def chunks(self) -> bytes:
            body = b""
            while self.headers.get("Transfer-Encoding") == "chunked" and (size := int(self.rfile.readline(), 16)):
                body += self.rfile.read(size)
                self.rfile.readline()
            return body

        def log_message(self, *args):
            pass

        do_GET = do_POST = answer

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    # transformers keeps a client of whichever endpoint it first asked, which another test may have done.
    monkeypatch.setattr("transformers.utils.hub._hf_api", None)
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setenv("HF_TOKEN_PATH", "/nowhere")
    yield state
    server.shutdown()
    server.server_close()


def committed(hub) -> dict[str, dict[str, str]]:
    """Commit message → {file: content} of what the hub was sent."""
    import base64

    commits = {}
    for path, _, body in hub.requests:
        if "/commit/" in path:
            lines = [json.loads(line) for line in body.splitlines()]
            files = {line["value"]["path"]: line["value"]["content"] for line in lines if line["key"] == "file"}
            commits[lines[0]["value"]["summary"]] = {name: base64.b64decode(text) for name, text in files.items()}
    return commits


def test_a_run_is_pushed_with_its_card_and_without_token_and_rows(hub, make_base, command, tmp_path, capsys):
    flags = ["--push_to_hub", "--hub_token", "hf_secret", "--save_steps", "2", "--do_predict"]
    assert qlora.main(command(make_base(), *flags)) == 0
    assert "pushed" in capsys.readouterr().out
    # The library may ask for a public list without a token; everything else carries it.
    assert {token for path, token, _ in hub.requests if "agent-harnesses" not in path} == {"Bearer hf_secret"}
    commits = committed(hub)
    end = commits["End of training"]
    assert end["README.md"] == (tmp_path / "out" / "README.md").read_bytes()
    assert end["adapter_model.safetensors"] == (tmp_path / "out" / "adapter_model.safetensors").read_bytes()
    assert not [name for name in end if name.endswith("jsonl") or "checkpoint" in name]
    assert not [name for files in commits.values() for name, content in files.items() if b"hf_secret" in content]
    sent = len(hub.requests)
    assert qlora.main(command(make_base(), *flags, "--do_train", "False")) == 0
    assert "--push_to_hub: nothing is pushed without training" in capsys.readouterr().out and len(hub.requests) == sent


@pytest.mark.parametrize("status", [401, 403])
def test_a_hub_that_refuses_is_told_before_the_model_loads(hub, status, make_base, command, capsys, monkeypatch):
    monkeypatch.setattr("training.model.build.load_base_model", lambda *args: pytest.fail("the base model was loaded"))
    hub.status = status
    assert qlora.main(command(make_base(), "--push_to_hub", "--hub_token", "hf_secret")) == 2
    message = capsys.readouterr().err
    assert "--push_to_hub: out at http" in message and str(status) in message and "hf_secret" not in message


def test_a_hub_that_is_not_there(hub, make_base, command, capsys, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr("training.model.build.load_base_model", lambda *args: pytest.fail("the base model was loaded"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # the port of a service that nobody runs
    assert qlora.main(command(make_base(), "--push_to_hub", "--hub_token", "hf_secret")) == 2
    assert "--push_to_hub: out at http://127.0.0.1:9 cannot be pushed to" in capsys.readouterr().err


def test_a_push_needs_a_token_and_a_name(hub, make_args, monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert "there is no token" in refusal(make_args, "--push_to_hub")
    message = refusal(make_args, "--push_to_hub", "--hub_model_id", "a/b/c")
    assert "--hub_model_id a/b/c" in message and "OWNER/NAME" in message
    assert not hub.requests
