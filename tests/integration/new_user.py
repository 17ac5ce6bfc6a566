#!/usr/bin/env python3
"""What a new user may do to `./dev run` and to the agent: new_user.py --bin DIR

No root, a folder with blanks, two at once, a port that is taken, Ctrl-C and worse at any moment. Each time a clear
sentence, and nothing left running.
"""

import argparse
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True
from node_under_test import NodeUnderTest, eventually, free_port  # noqa: E402

BIN = None  # the folder that --bin names
NOBODY = 65534


def processes_that_mention(text):
    """Command lines of live processes, except our own, in which `text` stands."""
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        if int(entry.name) == os.getpid():
            continue
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in line:
            found.append(line)
    return found


def taken_port():
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen(1)
    return taken, taken.getsockname()[1]


class NewUser(unittest.TestCase):
    def setUp(self):
        self.tmp = pathlib.Path(tempfile.mkdtemp(prefix="gpuslice new user "))  # with blanks, every time
        os.chmod(self.tmp, 0o777)
        self.addCleanup(shutil.rmtree, self.tmp, True)

    def walk(self, *options, before=(), here=HERE, bin_dir=None):
        return subprocess.Popen([*before, "env", "--block-signal=INT", sys.executable if not before else "python3", here / "walk.py", "--bin", bin_dir or BIN, *options],
                                env=dict(os.environ, TMPDIR=str(self.tmp)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                start_new_session=True)

    def ended(self, walk, seconds=90):
        said, _ = walk.communicate(timeout=seconds)
        return walk.returncode, said

    def assert_nothing_left(self):
        eventually(f"processes of {self.tmp} end", lambda: not processes_that_mention(str(self.tmp)), 3)
        self.assertEqual([p.name for p in self.tmp.iterdir() if p.name.startswith("gpuslice-run-")], [])

    def test_in_a_folder_with_blanks(self):
        code, said = self.ended(self.walk("--once", "--listen", f"127.0.0.1:{free_port()}"))
        self.assertEqual(code, 0, said)
        self.assertIn("40 held, 0 failed", said)
        self.assert_nothing_left()

    def test_without_root(self):
        """All of it is copied to where nobody may read: programs, library, walk, examples. Pods alone may refuse, with a sentence."""
        there = self.tmp / "clone of it"
        (there / "build" / "lib").mkdir(parents=True)
        (there / "build" / "bin").mkdir()
        for name in ("gpuslice", "gpuslice-sim"):
            shutil.copy(pathlib.Path(BIN) / name, there / "build" / "bin")
        shutil.copy(pathlib.Path(BIN).parent / "lib" / "libnvidia-ml.so.1", there / "build" / "lib")
        shutil.copytree(HERE, there / "tests" / "integration", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(HERE.parents[1] / "examples", there / "examples")
        before = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"] if os.geteuid() == 0 else ["env"]
        before += ["HOME=/nonexistent"] if before == ["env"] else ["env", "HOME=/nonexistent", "PATH=/usr/bin:/bin"]
        code, said = self.ended(self.walk("--once", "--listen", f"127.0.0.1:{free_port()}", before=before, here=there / "tests" / "integration",
                                          bin_dir=there / "build" / "bin"))
        if "not checked" in said:
            self.assertIn("pods, which get a private view of the devices and need root for it here", said)
            self.assertIn(" held, 0 failed, 3 not checked", said)
            self.assertEqual(code, 1, said)
        else:
            self.assertIn("40 held, 0 failed", said)
            self.assertEqual(code, 0, said)
        self.assert_nothing_left()

    def test_twice_at_once(self):
        both = [self.walk("--once"), self.walk("--once")]
        for walk in both:
            code, said = self.ended(walk)
            self.assertEqual(code, 0, said)
        self.assert_nothing_left()

    def test_a_port_that_is_taken(self):
        taken, port = taken_port()
        with taken:
            code, said = self.ended(self.walk("--once", "--listen", f"127.0.0.1:{port}"))
            self.assertEqual((code, said), (1, f"dev run: --listen 127.0.0.1:{port}: another program listens there; take another port, "
                                               "or leave --listen out to get a free one\n"))
            self.assert_nothing_left()
            # The agent itself, told to listen there.
            with NodeUnderTest(BIN, under=self.tmp) as node:
                node.configure("version: v1\n")
                node.start_agent(f"127.0.0.1:{port}")
                self.assertNotEqual(node.agent.wait(10), 0)
                self.assertEqual(node.log("agent"), f"127.0.0.1:{port}: cannot be listened on: another program has this port; stop it, or choose "
                                                    "another with --listen HOST:PORT (--listen 127.0.0.1:0 takes a free one)\n")

    def test_ctrl_c_at_any_moment(self):
        for after in (0.1, 0.15, 0.2, 0.3, 0.4, 0.55, 0.7, 0.85, 1.0, 1.2, 1.5, 3.0):
            with self.subTest(after=after):
                walk = self.walk("--listen", f"127.0.0.1:{free_port()}")
                time.sleep(after)
                walk.send_signal(signal.SIGINT)
                code, said = self.ended(walk, 15)
                self.assertIn(code, (130, 0), said)
                self.assertTrue(said.endswith(("\nended\n", "\nended before the walk was over\n")), said)
                self.assertNotIn("Traceback", said)
                self.assert_nothing_left()

    def test_killed(self):
        """SIGKILL leaves the folder, as it must, and no process."""
        for after in (0.4, 0.8, 2.0):
            walk = self.walk("--listen", f"127.0.0.1:{free_port()}")
            time.sleep(after)
            walk.kill()
            walk.communicate(timeout=15)
            eventually(f"processes of {self.tmp} end", lambda: not processes_that_mention(str(self.tmp)), 3)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    known, rest = parser.parse_known_args()
    BIN = str(pathlib.Path(known.bin).resolve())
    unittest.main(argv=[sys.argv[0], *rest])
