"""Script runs from the artifact to the exit code, with real processes."""

from __future__ import annotations

import json
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from script_world import ScriptWorld, failed, succeeded

from augury import clock
from augury.engine import Engine
from augury.errors import InvalidError
from augury.jobs.states import RunState
from augury.processes.valkey import ValkeyServer
from augury.settings import Settings


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, valkey: ValkeyServer) -> Iterator[ScriptWorld]:
    """One engine and one worker for all tests: every test has its own jobs."""
    folder = tmp_path_factory.mktemp("scripts")
    settings = Settings(
        home=folder / "home", redis_url=valkey.url, namespace=folder.name, drain_s=3.0
    )
    with Engine(settings) as engine:
        found = ScriptWorld(engine, folder / "files")
        yield found
        found.close()


def test_a_python_script_runs_and_its_lines_are_kept(world: ScriptWorld) -> None:
    world.script("hello.py", "import sys\nprint('hello')\nprint('oops', file=sys.stderr)\n")
    run = succeeded(world.ran("hello.py"))
    assert (run.exit_code, run.exit_signal, run.attempt) == (0, None, 1)
    assert run.peak_memory_bytes is not None
    assert run.peak_memory_bytes > 1_000_000
    assert [
        (line.stream, line.text) for line in sorted(world.lines(run), key=lambda x: x.text)
    ] == [
        ("stdout", "hello"),
        ("stderr", "oops"),
    ]
    assert world.service_log(run) == [
        "Infrastructure provisioning.",
        "Infrastructure provisioned.",
        "Job run bootstrap starting.",
        "Job run bootstrap complete. Artifact execution starting.",
        "Job run artifact execution in progress.",
        "Job run artifact execution succeeded. Infrastructure de-provisioning.",
    ]


def test_the_exit_code_is_the_runs(world: ScriptWorld) -> None:
    world.script("exit.sh", "exit 42\n", output=str(world.folder / "exit-out"))
    run = failed(world.ran("exit.sh"))
    assert (run.exit_code, run.exit_signal, run.reason) == (42, None, "exit_code")
    assert run.lifecycle_details == "Job run artifact execution failed with exit code 42."


def test_a_signal_is_named(world: ScriptWorld) -> None:
    world.script("signal.sh", "kill -SEGV $$\n")
    run = failed(world.ran("signal.sh"))
    assert (run.exit_code, run.exit_signal, run.reason) == (None, "SIGSEGV", "signal")


def test_environment_and_arguments_with_overrides(world: ScriptWorld) -> None:
    world.script(
        "env.py",
        "import json, os, sys\nprint(json.dumps([dict(os.environ), sys.argv[1:], os.getcwd()]))\n",
        environment={"A": "Hello", "B": "${A} World", "C": "$${A} ${MISSING}", "D": "job"},
        arguments='100 linux "hi there"',
    )
    run = succeeded(world.ran("env.py", environment={"D": "run"}, display_name="mine"))
    environment, arguments, cwd = json.loads(world.texts(run)[0])
    assert environment["B"] == "Hello World"
    assert environment["C"] == "${A} ${MISSING}"
    assert environment["D"] == "run"
    assert environment["JOB_RUN_OCID"] == environment["AUGURY_RUN_ID"] == run.id
    assert environment["JOB_OCID"] == environment["AUGURY_JOB_ID"] == run.job_id
    assert environment["JOB_ARTIFACT_FILE_NAME"] == "env.py"
    assert environment["AUGURY_RUN_NAME"] == run.name == "mine"
    assert environment["HOME"] == cwd
    assert environment["OMP_NUM_THREADS"] == "1"
    assert "AUGURY_DATABASE_URL" not in environment
    assert arguments == ["100", "linux", "hi there"]
    assert not Path(cwd).exists()


def test_output_is_uploaded_also_after_a_failure(world: ScriptWorld) -> None:
    script = "mkdir -p $OUTPUT_DIR/a; echo one > $OUTPUT_DIR/a/1.txt; ln -s /etc $OUTPUT_DIR/etc\n"
    world.script("out.sh", script + "exit ${CODE:-0}\n", output=str(world.folder / "out") + "/")
    run = succeeded(world.ran("out.sh"))
    assert world.output(run) == {"a/1.txt": "one\n"}
    assert "Output: 1 files, 4 bytes, 1 links left out." in world.service_log(run)
    run = failed(world.ran("out.sh", environment={"CODE": "3"}))
    assert world.output(run) == {"a/1.txt": "one\n"}


def test_an_output_uri_of_the_jobs_own_is_written_again_and_again(world: ScriptWorld) -> None:
    target = world.folder / "fixed"
    world.script(
        "fixed.sh",
        "echo $TEXT > $OUTPUT_DIR/it.txt\n",
        environment={"OUTPUT_URI": f"file://{target}/${{PLACE}}/", "PLACE": "p"},
    )
    for text in ("one", "two"):
        succeeded(world.ran("fixed.sh", environment={"TEXT": text}))
        assert (target / "p" / "it.txt").read_text() == f"{text}\n"


def test_archives_start_where_they_say(world: ScriptWorld) -> None:
    folder = world.folder / "archive"
    world.file(
        "archive/entry.py", "import os\nfrom tools.log import say\nsay(os.environ['KEY2'])\n"
    )
    world.file("archive/tools/log.py", "def say(text): print('said', text)\n")
    world.file("archive/jobruntime.yaml", "JOB_RUN_ENTRYPOINT: entry.py\nKEY1: v\nKEY2: 123123\n")
    inside = world.folder / "inside.zip"
    with zipfile.ZipFile(inside, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    world.job("inside", inside)
    assert world.texts(succeeded(world.ran("inside"))) == ["said 123123"]
    whole = world.folder / "whole.tar.gz"
    with tarfile.open(whole, "w:gz") as packed:
        packed.add(folder, "archive")
    variables = {"JOB_RUN_ENTRYPOINT": "archive/entry.py", "KEY2": "mine"}
    world.job("whole", whole, environment=variables)
    assert world.texts(succeeded(world.ran("whole"))) == ["said mine"]


def test_any_executable_with_a_shebang_runs(world: ScriptWorld) -> None:
    world.script("tool", "#!/usr/bin/env -S python3 -u\nprint('shebang')\n")
    assert world.texts(succeeded(world.ran("tool"))) == ["shebang"]
    world.script("bad-tool", "#!/no/such/interpreter\n")
    run = failed(world.ran("bad-tool"))
    assert run.reason == "not_started"
    assert "No such file or directory" in run.lifecycle_details


def test_a_changed_artifact_is_a_new_version_and_old_runs_keep_theirs(world: ScriptWorld) -> None:
    world.script("versions.sh", "echo one\n")
    first = world.ran("versions.sh")
    world.script("versions.sh", "echo two\n")
    second = world.ran("versions.sh")
    assert (first.job_version, second.job_version) == (1, 2)
    assert first.spec["artifact"]["digest"] != second.spec["artifact"]["digest"]
    assert (world.texts(first), world.texts(second)) == (["one"], ["two"])


def test_cancel_ends_the_whole_group(world: ScriptWorld) -> None:
    world.script(
        "stubborn.py",
        "import os, signal, subprocess, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: print('TERM', flush=True))\n"
        "child = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        "print(os.getpid(), child.pid, flush=True)\n"
        "while True: time.sleep(0.05)\n",
    )
    run = world.start("stubborn.py")
    world.until(lambda: world.texts(run), "it says its processes")
    pids = [int(pid) for pid in world.texts(run)[0].split()]
    assert world.run(run).state is RunState.IN_PROGRESS
    assert world.run(run).lifecycle_details == "Job run artifact execution in progress."
    world.engine.cancel_run(run.id)
    found = world.finished(run)
    assert found.state is RunState.CANCELED
    assert not any(_lives(pid) for pid in pids)
    assert "TERM" in world.texts(run)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_daemon_does_not_outlive_the_run(world: ScriptWorld) -> None:
    world.script(
        "daemon.py",
        "import os, sys, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0:\n"
        "        print(os.getpid(), flush=True)\n"
        "        time.sleep(600)\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "time.sleep(0.1)\n",
    )
    run = succeeded(world.ran("daemon.py"))
    assert not _lives(int(world.texts(run)[0]))


def test_the_maximum_runtime_is_kept(world: ScriptWorld) -> None:
    world.script("long.sh", "echo started; sleep 600; echo never\n")
    began_s = clock.monotonic_s()
    run = failed(world.ran("long.sh", maximum_runtime_s=0.5))
    assert clock.monotonic_s() - began_s < 15
    assert run.reason == "maximum_runtime"
    assert "maximum runtime of 0.5 s exceeded" in run.lifecycle_details
    assert world.texts(run) == ["started"]


def test_memory_is_kept_within_the_shape(world: ScriptWorld) -> None:
    world.script(
        "hog.py",
        "held = []\nwhile True: held.append(bytearray(b'x') * 4_000_000)\n",
        shape={"cpus": 1, "memory": "100 MiB"},
    )
    run = failed(world.ran("hog.py"))
    assert run.reason == "out_of_memory"
    assert "out of memory: limit 100 MiB, peak " in run.lifecycle_details
    assert run.peak_memory_bytes is not None
    assert run.peak_memory_bytes > 100 * 2**20


def test_storage_is_kept_within_its_quota(world: ScriptWorld) -> None:
    script = "for i in 1 2 3 4; do head -c 900000 /dev/zero > $i; done; sleep 600\n"
    world.script("filler.sh", script, block_storage="2 MB")
    run = failed(world.ran("filler.sh"))
    assert run.reason == "out_of_storage"
    assert "out of block storage: limit 1.907 MiB, found 3." in run.lifecycle_details


def test_a_fork_bomb_ends(world: ScriptWorld) -> None:
    script = "import os, time\nfor _ in range(10):\n    os.fork()\ntime.sleep(600)\n"
    world.script("bomb.py", script, shape={"memory": "64 GiB"})
    assert failed(world.ran("bomb.py")).reason == "too_many_processes"


def test_only_as_many_cpus_as_the_shape_has(world: ScriptWorld) -> None:
    world.script("cpus.py", "import os\nprint(len(os.sched_getaffinity(0)))\n")
    assert world.texts(succeeded(world.ran("cpus.py"))) == ["1"]


def test_retries_are_off_unless_asked_for(world: ScriptWorld) -> None:
    script = "echo attempt $AUGURY_RUN_ATTEMPT; [ $AUGURY_RUN_ATTEMPT = 2 ]\n"
    world.script("once.sh", script)
    assert failed(world.ran("once.sh")).attempt == 1
    world.script("twice.sh", script, max_attempts=3)
    run = world.start("twice.sh")
    world.until(
        lambda: world.executor.wake("script") or world.run(run).is_finished, "it was tried again"
    )
    run = succeeded(world.run(run))
    assert (run.attempt, run.exit_code) == (2, 0)
    assert world.texts(run) == ["attempt 1", "attempt 2"]
    assert [line.number for line in world.lines(run)] == [1, 2]


def test_binary_and_endless_output_do_no_harm(world: ScriptWorld) -> None:
    world.script(
        "wild.py",
        "import sys\n"
        "out = sys.stdout.buffer\n"
        "out.write(b'\\xff\\x00\\xfe text\\n')\n"
        "for _ in range(50): out.write(b'x' * 1_000_000)\n"
        "out.write(b'\\nend without newline')\n",
    )
    run = succeeded(world.ran("wild.py"))
    binary, endless, end = world.texts(run)
    assert binary == "\\xff\x00\\xfe text"
    assert endless.endswith(" ... [line cut: 49983616 bytes more]")
    assert end == "end without newline"


def test_limits_of_the_log_are_told_in_the_log(world: ScriptWorld) -> None:
    world.script("loud.py", "for n in range(1000): print('line', n)\n")
    run = succeeded(world.ran("loud.py", logging={"max_bytes": 80}))
    assert len(world.texts(run)) == 12
    assert world.texts(run, "augury") == [
        "the log is full: 80 bytes; the rest is only counted",
        "988 lines were not kept: the log was full",
    ]
    run = succeeded(world.ran("loud.py", logging={"enabled": False}))
    assert world.lines(run) == []


def test_lines_are_there_while_the_run_goes_on(world: ScriptWorld) -> None:
    world.script("live.sh", "echo now; while [ ! -e $GO ]; do sleep 0.05; done; echo then\n")
    go = world.folder / "go"
    run = world.start("live.sh", environment={"GO": str(go)})
    world.until_it_says(run, "now")
    go.touch()
    assert world.texts(succeeded(world.finished(run))) == ["now", "then"]


def test_a_worker_that_stops_ends_its_script_and_says_so(
    world: ScriptWorld, tmp_path: Path
) -> None:
    settings = world.settings.model_copy(update={"home": tmp_path / "home"})
    with Engine(settings) as engine:
        other = ScriptWorld(engine, tmp_path / "files")
        script = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done\n"
        other.script("polite.sh", script)
        run = other.start("polite.sh")
        other.until_it_says(run, "ready")
        other.close()
        run = failed(other.run(run))
        assert run.reason == "worker_stopped"
        assert other.texts(run) == ["ready", "bye"]


def test_requirements_are_installed_once(world: ScriptWorld) -> None:
    wheel = world.folder / "req" / "tiny-1.0-py3-none-any.whl"
    wheel.parent.mkdir(parents=True)
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny.py", "WORD = 'tiny'\n")
        archive.writestr(
            "tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n"
        )
        archive.writestr(
            "tiny-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr("tiny-1.0.dist-info/RECORD", "")
    world.file("req/main.py", "import sys, tiny\nprint(tiny.WORD, sys.prefix)\n")
    world.file("req/requirements.txt", "./tiny-1.0-py3-none-any.whl\n")
    packed = world.folder / "req.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sorted(wheel.parent.iterdir()):
            archive.write(path, path.name)
    world.job("req", packed, environment={"JOB_RUN_ENTRYPOINT": "main.py"})
    first, second = succeeded(world.ran("req")), succeeded(world.ran("req"))
    assert world.texts(first) == world.texts(second)
    word, prefix = world.texts(first)[0].split()
    assert word == "tiny"
    assert str(world.settings.effective_cache_dir) in prefix
    assert any("requirements.txt built in" in text for text in world.service_log(first))
    assert any("requirements.txt found" in text for text in world.service_log(second))


def test_what_can_never_run_is_refused_when_it_is_applied(world: ScriptWorld) -> None:
    with zipfile.ZipFile(world.folder / "evil.zip", "w") as archive:
        archive.writestr("../../evil.py", "")
        archive.writestr("/etc/evil.py", "")
    world.file("thing.bin", "no script")
    for name, told in (
        ("evil.zip", "leads out of it"),
        ("thing.bin", "expected a .py or .sh file"),
        ("missing.py", "expected a file, found none"),
    ):
        with pytest.raises(InvalidError, match=told):
            world.job("refused", world.folder / name)


def test_the_work_folder_is_empty_afterwards(world: ScriptWorld) -> None:
    world.script("clean.sh", "mkdir -m 000 locked; touch x\n")
    succeeded(world.ran("clean.sh"))
    world.until(
        lambda: not list(world.settings.effective_scratch_dir.iterdir()), "folders are gone"
    )
