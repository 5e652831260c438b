"""A machine of its own with users, /etc and /var/lib, on which the unit's service runs and people type commands.

A mount namespace and real users, so nothing in the program is patched. Run as a module it is the machine itself: it
takes orders as lines of JSON, and makes a process of the user that each names.
"""

from __future__ import annotations

import configparser
import contextlib
import gc
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[1]
_ETC = ("hosts", "nsswitch.conf", "ld.so.cache", "localtime", "ssl")
_PASSWD = """root:x:0:0::/root:/bin/sh
gateway:x:990:990::/var/lib/gateway:/usr/sbin/nologin
alice:x:1001:1001::/home/alice:/bin/sh
olga:x:1002:1002::/home/olga:/bin/sh
gina:x:1003:1003::/home/gina:/bin/sh
"""
_GROUP = "root:x:0:\ngateway:x:990:gina\nalice:x:1001:\nolga:x:1002:\ngina:x:1003:\nmailops:x:1100:gateway,olga\n"


@dataclass(frozen=True, slots=True)
class Done:
    """What a command came to."""

    code: int
    out: str
    err: str


def cannot() -> str:
    """Why there can be none here; "" where there can."""
    if os.geteuid() != 0:
        return "only root can be several users"
    probe = ["unshare", "--mount", "--propagation", "private", "mount", "-t", "tmpfs", "none", "/mnt"]
    if not shutil.which("unshare") or subprocess.run(probe, capture_output=True, check=False).returncode:
        return "no mount namespaces here"
    return ""


class Machine:
    """``place`` is what others see of it from outside: etc, var-lib, home and units."""

    def __init__(self, place: Path) -> None:
        self.place = place
        place.chmod(0o755)
        self._running: dict[str, int] = {}
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-m", "tests.machine", str(place)]
        self._driver = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/", env=environ
        )
        self.ask(ready=True)

    @property
    def etc(self) -> Path:
        return self.place / "etc"

    @property
    def state(self) -> Path:
        return self.place / "var-lib" / "gateway"

    def ask(self, **order: Any) -> Any:
        assert self._driver.stdin
        assert self._driver.stdout
        self._driver.stdin.write(json.dumps(order) + "\n")
        self._driver.stdin.flush()
        return json.loads(self._driver.stdout.readline())

    def run(self, who: str, *arguments: str, program: str = "gateway", **environ: str) -> Done:
        """``gateway`` as this user types it, at home, with nothing in the environment that he did not put there."""
        return Done(**self.ask(who=who, arguments=[program, *arguments], environ=environ))

    def install(self, settings: str, name: str = "gateway") -> None:
        """As docs/install.md: unit, user and settings, root's and readable to the service's group only."""
        (self.place / "units" / f"{name}.service").write_text((ROOT / "systemd" / "gateway.service").read_text())
        folder = self.etc / name
        folder.mkdir(exist_ok=True)
        file = folder / "config.yaml"
        file.write_text(settings)
        os.chown(file, 0, 990)
        file.chmod(0o640)

    def start(self, name: str = "gateway", *more: str, **environ: str) -> None:
        """As systemd starts the unit ``name``, until its socket answers; nothing where it runs."""
        if name in self._running:
            return
        self._running[name] = int(self.ask(unit=name, more=more, environ=environ))
        deadline = time.monotonic() + 30
        while self.run("root", "healthcheck", *more).code:
            assert time.monotonic() < deadline, (self.place / f"{name}.log").read_text()
            time.sleep(0.2)

    def stop(self, name: str = "gateway") -> None:
        """As systemd does; nothing where it does not run."""
        if pid := self._running.pop(name, 0):
            self.ask(stop=pid)

    def made(self) -> set[str]:
        """Everything that lies in homes and below /var/lib."""
        folders = (self.place / name for name in ("home", "root", "var-lib"))
        return {str(path.relative_to(self.place)) for folder in folders for path in folder.rglob("*")}

    def close(self) -> None:
        self._driver.communicate(timeout=30)


@contextlib.contextmanager
def machine() -> Iterator[Machine]:
    with tempfile.TemporaryDirectory(prefix="gwm-") as folder:
        one = Machine(Path(folder))
        try:
            yield one
        finally:
            one.close()


# -- the machine itself --------------------------------------------------------------------------------------------


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def _let_in(folder: Path, place: Path) -> None:
    """Every user may go there, whoever owns what is above it."""
    closed = next((one for one in reversed(folder.parents) if not one.stat().st_mode & 0o001), None)
    if closed:
        kept = Path(tempfile.mkdtemp(dir=place))
        _mount("--bind", str(folder), str(kept))
        _mount("-t", "tmpfs", "-o", "mode=755", "none", str(closed))
        folder.mkdir(parents=True)
        _mount("--bind", str(kept), str(folder))


def _furnish(place: Path) -> None:
    for folder in {Path(sys.prefix), Path(sys.base_prefix), ROOT}:
        with contextlib.suppress(FileExistsError):
            _let_in(folder, place)
    for name in ("etc", "var-lib", "home", "units"):
        (place / name).mkdir()
    for name in _ETC:
        old = Path("/etc", name)
        if old.is_dir():
            shutil.copytree(old, place / "etc" / name, symlinks=True)
        elif old.exists():
            shutil.copy(old, place / "etc" / name)
    (place / "etc/passwd").write_text(_PASSWD)
    (place / "etc/group").write_text(_GROUP)
    (place / "etc/systemd").mkdir()
    (place / "etc/systemd/system").symlink_to(place / "units")
    for name, target in (("etc", "/etc"), ("var-lib", "/var/lib"), ("home", "/home")):
        _mount("--bind", str(place / name), target)
    for user in pwd.getpwall():
        if user.pw_dir.startswith("/home/"):
            Path(user.pw_dir).mkdir(mode=0o700)
            os.chown(user.pw_dir, user.pw_uid, user.pw_gid)


def _become(user: pwd.struct_passwd, environ: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update({"HOME": user.pw_dir, "USER": user.pw_name, "PATH": "/usr/bin:/bin", **environ})
    os.initgroups(user.pw_name, user.pw_gid)
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
    os.chdir(user.pw_dir if os.access(user.pw_dir, os.X_OK) else "/")


def _enter(arguments: Sequence[str]) -> NoReturn:
    """Be this command, and end with its exit code."""
    code: object = 70
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, mode, closefd=False) for n, mode in enumerate("rww"))
    sys.argv = list(arguments)
    try:
        if arguments[0] == "gateway":
            from gateway.cli.__main__ import main

            main(arguments[1:])
        else:
            from gateway.cli.sendmail import main as sendmail

            sendmail()
        code = 0
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


def _type(order: Mapping[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, Path(os.devnull).open() as nothing:
        if not (pid := os.fork()):
            for number, file in enumerate((nothing, out, err)):
                os.dup2(file.fileno(), number)
            _become(pwd.getpwnam(order["who"]), order["environ"])
            _enter(order["arguments"])
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
    return {"code": code, "out": texts[0], "err": texts[1]}


def _start(place: Path, order: Mapping[str, Any]) -> int:
    """The unit's directories, user, umask, environment and command line (systemd.exec(5))."""
    parser = configparser.RawConfigParser(strict=False, delimiters=("=",), comment_prefixes=("#",))
    parser.read(place / "units" / f"{order['unit']}.service")
    unit, environ = parser["Service"], dict(order["environ"])
    user = pwd.getpwnam(unit["User"])
    if "StateDirectory" in unit:
        folder = Path("/var/lib", unit["StateDirectory"].replace("gateway", order["unit"]))
        folder.mkdir(exist_ok=True)
        folder.chmod(int(unit["StateDirectoryMode"], 8))
        os.chown(folder, user.pw_uid, user.pw_gid)
        environ["STATE_DIRECTORY"] = str(folder)
    if not (pid := os.fork()):
        os.setsid()
        with (place / f"{order['unit']}.log").open("ab") as log, Path(os.devnull).open() as nothing:
            for number, file in enumerate((nothing, log, log)):
                os.dup2(file.fileno(), number)
        os.umask(int(unit["UMask"], 8))
        _become(user, environ)
        _enter(["gateway", *unit["ExecStart"].split()[1:], *order["more"]])
    return pid


def _main(place: Path) -> None:
    _furnish(place)
    sys.path_importer_cache.clear()
    import gateway.calling
    import gateway.cli.checking
    import gateway.cli.local
    import gateway.doctor.examine  # noqa: F401 - once, for all that are made from here

    gc.freeze()
    running: set[int] = set()
    for line in sys.stdin:
        order = json.loads(line)
        answer: object = None
        if "ready" in order:
            answer = True
        elif "unit" in order:
            answer = _start(place, order)
            running.add(answer)
        elif "stop" in order:
            os.kill(order["stop"], signal.SIGTERM)
            answer = os.waitpid(order["stop"], 0)[1]
            running.discard(order["stop"])
        else:
            answer = _type(order)
        print(json.dumps(answer), flush=True)
    for pid in running:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
