"""The explorer in a real browser: a slider moves the figures, the language its words; how long that takes is printed."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from tests.conftest import require_part

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--window-size=1440,1100",
)  # fmt: skip
PATIENCE = 60.0
"""How long a page may take, s: the first run of a new checkout compiles the kernel."""
MOVES = 20
MOVE = """
const [name, key, done] = arguments;
const handle = document.querySelector(`.simlib-parameter-${name} .noUi-handle`);
const lines = () => [...document.querySelectorAll('.simlib-response path.line')].map(p => p.getAttribute('d')).join();
const said = () => document.querySelector('.simlib-said').innerText.trim();
const before = [lines(), said()];
const watch = () => {
  const now = performance.now() - start;
  const moved = lines() !== before[0] && said() !== before[1] && !said().endsWith('…');
  if (moved || now > 20000) done(now); else requestAnimationFrame(watch);
};
handle.focus();
const start = performance.now();
handle.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true, cancelable: true}));
requestAnimationFrame(watch);
"""
"""Moves a slider by a key; milliseconds until the frame with the lines and the words of the whole run."""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The explorer, served and open in a browser."""
    require_part(bool(CHROMIUM and DRIVER), "the browser test needs chromium and chromedriver: install them")
    command = [Path(sys.executable).with_name("simlib"), "explore", "--json"]
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for option in (*OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(option)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            address = json.loads("".join(iter(server.stdout.readline, "}\n")) + "}")["address"]
            with webdriver.Chrome(options, webdriver.ChromeService(DRIVER)) as browser:
                browser.set_script_timeout(PATIENCE)
                browser.get(address)
                until(lambda: says(browser, "20,000 messages, seed 1"))
                yield browser
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(PATIENCE)


def until(true) -> None:
    WebDriverWait(None, PATIENCE, 0.05).until(lambda _: true())


def says(browser, words: str) -> bool:
    return any(words in each.text for each in browser.find_elements(By.CLASS_NAME, "simlib-said"))


def lines(browser, panel: str) -> list[str]:
    found = browser.find_elements(By.CSS_SELECTOR, f".simlib-{panel} path.line")
    return [each.get_attribute("d") for each in found]


def choose(browser, words: str) -> None:
    [button] = [each for each in browser.find_elements(By.TAG_NAME, "button") if each.text == words]
    button.click()


def test_a_slider_moves_the_figures(page):
    assert len(lines(page, "response")) == 3 and len(lines(page, "delivery")) == 2
    times = []
    for k in range(MOVES):
        times.append(page.execute_async_script(MOVE, "http_server", "ArrowLeft" if k % 2 else "ArrowRight"))
        assert times[-1] < 20_000
        time.sleep(1.0)  # latency against load is on its way, from another thread
    median, p95, most = np.quantile(times, [0.5, 0.95, 1.0])
    print(
        f"slider to figure of 20,000 messages: median {median:.0f} ms, p95 {p95:.0f} ms, most {most:.0f} ms, of {MOVES}"
    )


def test_latency_against_load_is_drawn_for_each_kind(page):
    until(lambda: sum(line.count(",") >= 2 for line in lines(page, "loads")) >= 5)


def test_the_language_is_switched_and_back(page):
    choose(page, "Русский")
    until(lambda: says(page, "20 000 сообщений, зерно 1"))
    words = page.find_element(By.TAG_NAME, "body").text
    assert "обработчиков каждой очереди" in words and "response time" not in words
    assert "время ответа, мс" in words and "consumers" not in words
    choose(page, "English")
    until(lambda: says(page, "20,000 messages, seed 1"))
    assert "consumers of each queue" in page.find_element(By.TAG_NAME, "body").text


def test_what_the_model_refuses_is_said_in_one_line_and_can_be_mended(page):
    scenario = page.find_elements(By.CSS_SELECTOR, ".simlib-page select")[1]
    scenario.send_keys("Flash")
    until(lambda: says(page, "20,000 messages"))
    for messages, said in (("500", "500 messages end before the last phase"), ("20000", "20,000 messages, seed 1")):
        field = page.find_element(By.CSS_SELECTOR, ".simlib-messages input")
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(messages, Keys.ENTER)
        until(lambda said=said: says(page, said))
        assert "Traceback" not in page.find_element(By.TAG_NAME, "body").text
