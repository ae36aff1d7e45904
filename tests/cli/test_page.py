"""`treadle dump --format html`: one page that needs nothing else, linked both ways."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import treadle
from treadle.cli import main
from treadle.cli.page import page
from treadle.runtime.driver import chosen_target, compile_stages
from treadle.runtime.machine import Bandwidth, Machine
from treadle.tracer.backend import CompileOptions

MACHINE = Machine(
    "a CPU", "host", 2, 100e9, 200e9, 40e9, 40e9, (Bandwidth(1 << 16, 1e11, 2e11, 1e11, 2e11),)
)
SCRIPT = """\
import treadle  # </script><script>document.title = "broken"</script>

@treadle.jit
def layer(x, w):
    h = x @ w
    treadle.debug_print("<img src=x onerror=alert(1)> {}", treadle.sum(h))
    e = treadle.exp(h)
    return e / treadle.sum(e, axis=1, keepdims=True)

layer(treadle.zeros((40, 60)), treadle.zeros((60, 30)))
"""
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
VOID = {"meta", "link", "br", "img", "input", "hr"}


@pytest.fixture(autouse=True)
def known_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("treadle.runtime.profile.measured_machine", lambda: MACHINE)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "user <script>.py"
    path.write_text(SCRIPT, encoding="utf-8")
    return path


def dump(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["dump", "--format", "html", *words]) == 0
    return capsys.readouterr().out


class Page(HTMLParser):
    """What a page holds: text by section, keys by section, elements that load something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[tuple[str, str]] = []  # tag, id
        self.keys: dict[str, list[set[str]]] = {}
        self.texts: dict[str, str] = {}
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.feed(text)
        self.close()

    @property
    def section(self) -> str:
        return next((i for _, i in reversed(self.open) if i), "")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        known = tag in ("details", "div") and given.get("id")
        if tag not in VOID:
            self.open.append((tag, known or ""))
        if given.get("data-l"):
            self.keys.setdefault(self.section, []).append(set(str(given["data-l"]).split()))
        self.loads += [n for n in given if n in ("src", "href", "srcset", "data", "action")]
        self.loads += [n for n in given if n.startswith("on")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        opened, _ = self.open.pop()
        assert opened == tag, f"</{tag}> closes <{opened}>"

    def handle_data(self, data: str) -> None:
        self.texts[self.section] = self.texts.get(self.section, "") + data

    def lines(self, section: str) -> set[str]:
        """The keys of users' lines in a section."""
        return {k for keys in self.keys.get(section, ()) for k in keys if k.startswith("L")}


def test_the_page_is_well_formed_and_loads_nothing(
    script: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = dump(capsys, str(script))
    found = Page(text)
    assert not found.open
    assert not found.loads
    assert found.tags.count("script") == 1
    assert "img" not in found.tags
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]
    assert "default-src 'none'" in text


def test_users_text_is_escaped_and_whole(script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = dump(capsys, str(script))
    found = Page(text)
    assert SCRIPT.splitlines()[0] in found.texts["source"]
    assert "<img src=x onerror=alert(1)>" in found.texts["source"]
    assert "<img src=x" not in text
    assert "user <script>.py" in found.texts["source"]


def test_every_stage_is_on_the_page_and_linked_with_the_source(
    script: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = Page(dump(capsys, str(script)))
    stages = (
        "traced",
        "early_cse",
        "stabilize",
        "fuse",
        "kernels",
        "memory",
        "plan",
        "llvm",
        "asm",
    )
    for stage in stages:
        assert stage in found.texts, stage
    assert "matmul(" in found.texts["traced"]
    assert "softmax(" in found.texts["stabilize"]
    assert "fused(" in found.texts["fuse"]
    assert "define" in found.texts["llvm"]
    assert "treadle_entry:" in found.texts["asm"].lstrip("_")
    source = found.lines("source")
    assert len(source) >= 4
    for stage in ("traced", "stabilize", "fuse", "kernels", "plan", "llvm", "asm"):
        assert found.lines(stage), stage
        assert found.lines(stage) <= source, stage


def test_kernels_are_the_same_in_ir_picture_plan_and_code(
    script: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = Page(dump(capsys, str(script)))
    kernels = {
        stage: {k for keys in found.keys[stage] for k in keys if k.startswith("K")}
        for stage in ("fuse", "kernels", "plan", "llvm", "asm")
    }
    assert len(kernels["plan"]) >= 2
    assert all(found == kernels["plan"] for found in kernels.values())
    assert not any(k.startswith("K") for keys in found.keys["traced"] for k in keys)
    assert "f32[40, 30]" in found.texts["kernels"]


def test_equal_kernels_share_the_code_of_one_function() -> None:
    def twice(x: treadle.Tensor, w: treadle.Tensor) -> treadle.Tensor:
        return treadle.relu(treadle.relu(x @ w) @ w)

    square = treadle.TensorType(treadle.float32, (32, 32))
    traced = treadle.jit(twice).trace(square, square)
    compilation = compile_stages(traced, CompileOptions(), chosen_target())
    assert len(set(compilation.emitted.functions)) == 1
    found = Page(page(compilation))
    assert any(sum(k.startswith("K") for k in keys) >= 2 for keys in found.keys["asm"])
    inside = {k for keys in found.keys["asm"] for k in keys if k.startswith("K")}
    assert inside == {f"K{n}" for n in range(len(compilation.plan.kernels))}


def test_times_are_there_where_a_profile_was_taken(
    script: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, profiled = dump(capsys, str(script)), dump(capsys, "--profile", str(script))
    assert "times" not in Page(plain).texts
    found = Page(profiled)
    assert not found.open
    assert "GFLOP/s" in found.texts["times"]
    assert len(found.keys["times"]) == len(
        {k for keys in found.keys["times"] for k in keys if "K" in k}
    )
    assert "takes part in kernels of" in profiled
    assert "us a step" in profiled


def test_an_ir_file_has_a_page_without_source_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "f.ir"
    text.write_text(
        'func @f(%0: f32[4] "x") {\n  %1: f32[4] = exp(%0)  ; gone.py:7\n  return %1 "out"\n}\n',
        encoding="utf-8",
    )
    found = Page(dump(capsys, str(text)))
    assert "gone.py" in found.texts["source"]
    assert "7" in found.texts["source"]
    assert found.lines("asm") == found.lines("source") != set()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--format", "html", "--diff", "{script}"), "a diff is text"),
        (("--profile", "{script}"), "--format html"),
        (("--format", "html", "--profile", "x.ir"), "no data"),
    ],
    ids=str,
)
def test_mistakes_are_said(
    words: tuple[str, ...], said: str, script: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["dump", *(w.format(script=script) for w in words)]) == 2
    assert said in capsys.readouterr().err


def test_a_long_file_is_shown_around_its_linked_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "long.py"
    path.write_text("\n" * 5000 + SCRIPT + "# the end\n" * 100, encoding="utf-8")
    text = Page(dump(capsys, str(path))).texts["source"]
    assert "h = x @ w" in text
    assert "5005" in text
    assert "4000" not in text


def test_the_script_of_the_page_is_javascript(
    script: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    found = re.search(r"<script>(.*)</script>", dump(capsys, str(script)), re.DOTALL)
    assert found is not None
    file = tmp_path / "page.js"
    file.write_text(found[1], encoding="utf-8")
    done = subprocess.run([node, "--check", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --- in a browser ----------------------------------------------------------------------------

DRIVER = """
<script>
const say = {title: document.title};
const tell = () => { document.body.textContent = "RES" + "ULT" + JSON.stringify(say) + "END"; };
window.addEventListener("error", (event) => { say.error = event.message; tell(); });
const hits = (id) => [...document.querySelectorAll(`#${id} .hit`)].map((e) => e.textContent);
const over = (e) => e.dispatchEvent(new MouseEvent("mouseover", {bubbles: true}));
const find = (id, text) => [...document.querySelectorAll(`#${id} [data-l]`)]
  .find((e) => e.textContent.includes(text));
const key = (e, name) => e.dispatchEvent(new KeyboardEvent("keydown", {key: name, bubbles: true}));
const counts = () => Object.fromEntries(["source", "traced", "fuse", "kernels", "plan", "asm"]
  .map((id) => [id, hits(id).length]));

over(find("source", "h = x @ w"));
say.product = counts();
say.productTraced = hits("traced").join("");
over(find("traced", "exp("));
say.backSource = hits("source").join("");
over(document.body);
say.left = counts();

const code = find("asm", "k0_contract");
code.dispatchEvent(new MouseEvent("click", {bubbles: true}));
over(find("source", "treadle.exp"));
say.pinned = hits("source").join("");
say.pinnedPlan = hits("plan").join("");
key(document.body, "Escape");
say.released = counts();
key(find("source", "return e /"), "Enter");
say.entered = hits("source").join("");
const pane = document.querySelector("#asm .pane"), hit = pane.querySelector(".hit");
const box = hit.getBoundingClientRect(), frame = pane.getBoundingClientRect();
say.inView = box.bottom > frame.top && box.top < frame.bottom;
const ink = getComputedStyle(document.body);
say.colours = [ink.color, ink.backgroundColor];
tell();
</script>
"""


def in_browser(text: str, folder: Path, *flags: str) -> dict[str, Any]:
    """What the driver finds on the page `text`, opened without a network."""
    file = folder / "driven.html"
    file.write_text(text.replace("</body>", DRIVER + "</body>"), encoding="utf-8")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder / 'profile'}"]
    done = subprocess.run(
        [*command, *flags, file.as_uri()], capture_output=True, text=True, timeout=120
    )
    found = re.search(r"RESULT(.*?)END", done.stdout, re.DOTALL)
    assert found is not None, done.stdout[-2000:] + done.stderr[-2000:]
    result: dict[str, Any] = json.loads(
        found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    )
    return result


@pytest.mark.skipif(not BROWSER, reason="no headless browser (chromium) is installed")
def test_a_browser_links_lines_with_stages_and_back(
    script: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = dump(capsys, "--profile", str(script))
    say = in_browser(text, tmp_path)
    assert "error" not in say, say
    assert say["title"] == "@layer: what it becomes"
    assert all(count > 0 for count in say["product"].values()), say["product"]
    assert "matmul(" in say["productTraced"]
    assert "exp(" not in say["productTraced"]
    assert "e = treadle.exp(h)" in say["backSource"]
    assert not any(say["left"].values())
    assert "h = x @ w" in say["pinned"]
    assert "treadle.exp" not in say["pinned"]
    assert "k0_contract" in say["pinnedPlan"]
    assert "k1_" not in say["pinnedPlan"]
    assert not any(say["released"].values())
    assert "return e / " in say["entered"]
    assert say["inView"]


def _brightness(colour: str) -> float:
    return float(np.mean([int(n) for n in re.findall(r"\d+", colour)[:3]]))


@pytest.mark.skipif(not BROWSER, reason="no headless browser (chromium) is installed")
@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_in_light_and_dark(
    dark: bool, script: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--blink-settings=preferredColorScheme=0",) if dark else ()
    ink, paper = in_browser(dump(capsys, str(script)), tmp_path, *flags)["colours"]
    assert (_brightness(paper) < 60) == dark
    assert abs(_brightness(ink) - _brightness(paper)) > 150
