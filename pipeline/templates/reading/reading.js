"use strict";
// The reading page. It talks to its own server alone, and keeps the film in this tab's memory only.

const find = (id) => document.getElementById(id);
const stage = find("stage"), film = find("film"), heat = find("heat"), result = find("result");
const POINTS = {
  youden: "that balances missed and false findings (Youden)",
  sensitivity: "of high sensitivity: few are missed, more are false",
  specificity: "of high specificity: few are false, more are missed",
  f1: "of the best F1 score",
};
// viridis (van der Walt and Smith 2015) at nine places; what lies between is interpolated
const VIRIDIS = [[68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141],
  [39, 173, 129], [92, 200, 99], [170, 220, 50], [253, 231, 37]];
const FINE = 96; // pixels a side to which a map is enlarged here; the canvas smooths the rest
const SLOW = 3000; // milliseconds after which the page says how long it has waited

let model = null; // what /v1/model tells
let file = null; // the film at hand
let picture = null; // its pixels
let maps = null; // its heat maps, once they were asked for
let selected = ""; // the finding whose map is shown
let asking = null; // cancels what is under way
let view = { zoom: 1, x: 0, y: 0 };
let shades = { brightness: 100, contrast: 100, inverted: false };

// --- asking the server -------------------------------------------------------------------------------------------

function headers() {
  const secret = sessionStorage.getItem("token");
  return secret ? { Authorization: `Bearer ${secret}` } : {};
}

async function ask(path, body, signal) {
  let answer;
  try {
    answer = await fetch(path, { method: body ? "POST" : "GET", body, headers: headers(), signal, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw { title: "The server does not answer", detail: "It may have been stopped, or the network is down. Try again." };
  }
  if (answer.ok) return answer;
  if (answer.status === 401) {
    sessionStorage.removeItem("token");
    if (await askToken()) return ask(path, body, signal);
  }
  let problem = {};
  try { problem = await answer.json(); } catch { /* a proxy's page: its status says enough */ }
  const again = answer.headers.get("Retry-After");
  throw {
    title: problem.title || `The server answered ${answer.status}`,
    detail: (problem.detail || "") + (again ? ` Try again in ${again} s.` : ""),
  };
}

function askToken() {
  const dialog = find("token");
  find("secret").value = "";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => {
    const secret = find("secret").value.trim();
    if (dialog.returnValue === "ok" && secret) sessionStorage.setItem("token", secret);
    resolve(dialog.returnValue === "ok" && secret !== "");
  }, { once: true }));
}

function upload() {
  const form = new FormData();
  form.append("files", file, "film"); // its own name may name a patient, and nobody needs it
  return form;
}

// --- a film comes in ---------------------------------------------------------------------------------------------

async function read(chosen, flagged = false) {
  if (!chosen) return;
  if (asking) asking.abort();
  const mine = asking = new AbortController();
  if (chosen !== file) clear();
  file = chosen;
  const done = busy("Reading the film");
  try {
    if (!model) model = await (await ask("v1/model", null, mine.signal)).json();
    if (file.size > model.limits.max_upload_bytes - 1024) {
      throw { title: "The file is too large", detail: `At most ${Math.floor(model.limits.max_upload_bytes / 2 ** 20)} MiB are taken.` };
    }
    const shown = picture ? Promise.resolve() : display(mine.signal);
    shown.catch(() => {}); // looked at below; without a film on screen its numbers still are
    const answer = await (await ask(`v1/predict${flagged ? "?flagged=true" : ""}`, upload(), mine.signal)).json();
    await shown.catch((error) => { if (error.name === "AbortError") throw error; });
    if (mine !== asking) return;
    show(answer);
  } catch (error) {
    if (mine !== asking) return;
    if (error.name === "AbortError") complain({ title: "Cancelled", detail: "The film was not read." });
    else complain(error.title ? error : { title: "This page has a fault", detail: String(error) });
  } finally {
    if (mine === asking) { asking = null; done(); }
  }
}

async function display(signal) {
  const answer = await ask("v1/display", upload(), signal);
  const found = await createImageBitmap(await answer.blob());
  const [width, height] = (answer.headers.get("X-Film-Size") || "").split("x").map(Number);
  if (signal.aborted) return;
  picture = { bitmap: found, width: width || found.width, height: height || found.height };
  stage.classList.add("shown");
  fit();
}

function clear() {
  picture = maps = null;
  selected = "";
  stage.classList.remove("shown");
  setMap(false);
  find("map").disabled = true;
  for (const id of ["problem", "verdict", "notes", "findings", "map-note", "empty"]) find(id).hidden = true;
  draw();
}

function busy(text) {
  const start = Date.now();
  find("busy-text").textContent = `${text} …`;
  find("busy").hidden = false;
  result.setAttribute("aria-busy", "true");
  const timer = setInterval(() => {
    const passed = Date.now() - start;
    if (passed > SLOW) find("busy-text").textContent = `${text}: the server is busy, ${Math.round(passed / 1000)} s so far`;
  }, 500);
  return () => {
    clearInterval(timer);
    find("busy").hidden = true;
    result.removeAttribute("aria-busy");
  };
}

// --- what is said about it ---------------------------------------------------------------------------------------

function complain(error) {
  find("empty").hidden = true;
  const box = find("problem");
  box.querySelector("strong").textContent = error.title;
  box.querySelector("p").textContent = sentence(error.detail);
  box.hidden = false;
}

function show(answer) {
  const found = answer.films[0];
  find("empty").hidden = find("problem").hidden = true;
  tellVerdict(found);
  const notes = find("notes");
  notes.replaceChildren(...found.notes.map((note) => item(note.sentence)));
  notes.hidden = !found.notes.length;
  find("findings").hidden = !found.findings;
  if (found.findings) listFindings(found.findings, answer.point);
  const explain = model.explain;
  find("map").disabled = !explain.available || !picture || !found.findings;
  find("map-note").textContent = explain.available ? "" : `No heat map: ${explain.reason}.`;
  find("map-note").hidden = explain.available;
}

function tellVerdict(found) {
  const box = find("verdict"), gate = found.gate;
  const [strong, text, list] = ["strong", "p", "ul"].map((name) => box.querySelector(name));
  box.className = !gate ? "none" : gate.accepted ? "good" : "flagged";
  list.replaceChildren(...(gate ? gate.reasons : []).map((reason) => item(reason.sentence)));
  if (!gate) {
    strong.textContent = "Not checked";
    text.textContent = "This model has no input gate: nothing says whether the film is of a kind that it knows.";
  } else if (gate.accepted) {
    strong.textContent = "Looks like a film that the model knows";
    text.textContent = "The input gate found no reason against it. It can miss some.";
  } else {
    strong.textContent = "Not a film that the model knows";
    text.textContent = found.findings ? "Numbers for such a film mean little. The input gate says:" : "So no numbers are shown. The input gate says:";
  }
  find("anyway").hidden = Boolean(found.findings);
  box.hidden = false;
}

function listFindings(findings, point) {
  const sorted = [...findings].sort((a, b) => (b.probability ?? -1) - (a.probability ?? -1) || b.raw - a.raw);
  const share = sorted[0].probability === null ? "" : ` ${percent(sorted[0].probability)} of films with such an output for ${plain(sorted[0].finding).toLowerCase()} had it in validation.`;
  find("point").textContent = `Calibrated probabilities, the highest first:${share} A finding is called at the operating point ${POINTS[point] || point}.`;
  selected = sorted.some((row) => row.finding === selected) ? selected : (sorted.find((row) => row.called) || sorted[0]).finding;
  find("findings").querySelector("ol").replaceChildren(...sorted.map(findingRow));
  mark();
}

function findingRow(row) {
  const li = document.createElement("li"), button = document.createElement("button");
  button.type = "button";
  button.dataset.finding = row.finding;
  if (row.called) li.className = "called";
  const name = part("span", "name", plain(row.finding));
  if (row.called) name.append(part("span", "call", "called"));
  button.append(name, part("span", "share", row.probability === null ? "–" : percent(row.probability)));
  const bar = part("span", "bar", ""), share = part("span", "", "");
  share.style.width = `${100 * (row.probability ?? 0)}%`;
  bar.append(share);
  button.append(bar, part("span", "why", inWords(row)));
  button.addEventListener("click", () => { selected = row.finding; mark(); draw(); });
  li.append(button);
  return li;
}

function inWords(row) {
  const known = row.probability === null ? "Not calibrated. " : "", output = `the model's output ${number(row.raw)}`;
  if (row.called === null) return `${known}Neither called nor not: ${output} has no operating point.`;
  if (row.called) return `${known}Called: ${output} is at or above the operating point ${number(row.threshold)}.`;
  return `${known}Not called: ${output} is below ${number(row.threshold)}.`;
}

const item = (text) => part("li", "", text);
const sentence = (text) => text ? text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?…]$/.test(text) ? "" : ".") : "";
const percent = (share) => share < 0.01 ? "< 1 %" : share > 0.99 ? "> 99 %" : `${Math.round(100 * share)} %`;
const number = (value) => value === null ? "undefined" : value.toFixed(value < 0.1 ? 3 : 2);

function part(tag, name, text) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  made.textContent = text;
  return made;
}

function plain(name) {
  const words = name.split("_").map((word) => word === word.toUpperCase() ? word : word.toLowerCase()).join(" ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

function mark() {
  for (const button of document.querySelectorAll("#findings li button")) {
    button.setAttribute("aria-pressed", String(button.dataset.finding === selected));
  }
  tellMap();
}

function step(by) {
  const buttons = [...document.querySelectorAll("#findings li button")];
  const next = buttons[buttons.findIndex((button) => button.dataset.finding === selected) + by];
  if (next) { next.click(); next.scrollIntoView({ block: "nearest" }); }
}

// --- the heat map ------------------------------------------------------------------------------------------------

const mapOn = () => find("map").getAttribute("aria-pressed") === "true";

function setMap(on) {
  find("map").setAttribute("aria-pressed", String(on));
  find("opacity").disabled = !on;
  tellMap();
}

async function toggleMap() {
  if (find("map").disabled) return;
  if (mapOn() || maps) { setMap(!mapOn()); draw(); return; }
  const mine = asking = new AbortController();
  const done = busy("Asking where the model looks");
  try {
    maps = await (await ask("v1/explain", upload(), mine.signal)).json();
    setMap(true);
    draw();
  } catch (error) {
    if (error.name !== "AbortError") complain(error.title ? error : { title: "This page has a fault", detail: String(error) });
  } finally {
    if (mine === asking) asking = null;
    done();
  }
}

function tellMap() {
  const note = find("map-note");
  if (!maps || !mapOn()) { if (!model || model.explain.available) note.hidden = true; return; }
  const flat = maps.maps[selected] === null;
  note.textContent = flat
    ? `${plain(selected)}: no place raises this output, so there is no map.`
    : `${plain(selected)}: where the film raises the model's output. It is no outline of the finding.`;
  note.hidden = false;
}

function painted(rows) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = FINE;
  const context = canvas.getContext("2d"), pixels = context.createImageData(FINE, FINE);
  const height = rows.length, width = rows[0].length;
  for (let y = 0; y < FINE; y++) {
    for (let x = 0; x < FINE; x++) {
      const value = between(rows, (x + 0.5) * width / FINE - 0.5, (y + 0.5) * height / FINE - 0.5);
      const place = Math.min(value, 0.9999) * (VIRIDIS.length - 1), k = Math.floor(place), part = place - k;
      for (let c = 0; c < 3; c++) {
        pixels.data[4 * (y * FINE + x) + c] = VIRIDIS[k][c] + part * (VIRIDIS[k + 1][c] - VIRIDIS[k][c]);
      }
      pixels.data[4 * (y * FINE + x) + 3] = 255 * value; // the weaker, the clearer the film stays
    }
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}

function between(rows, x, y) {
  const clamp = (value, top) => Math.min(Math.max(value, 0), top);
  const height = rows.length - 1, width = rows[0].length - 1;
  x = clamp(x, width); y = clamp(y, height);
  const left = Math.floor(x), top = Math.floor(y), right = Math.min(left + 1, width), low = Math.min(top + 1, height);
  const u = x - left, v = y - top;
  return (rows[top][left] * (1 - u) + rows[top][right] * u) * (1 - v) + (rows[low][left] * (1 - u) + rows[low][right] * u) * v;
}

// --- drawing -----------------------------------------------------------------------------------------------------

function place() {
  const ratio = window.devicePixelRatio || 1;
  const width = Math.round(stage.clientWidth * ratio), height = Math.round(stage.clientHeight * ratio);
  const scale = picture ? Math.min(width / picture.width, height / picture.height) * view.zoom : 1;
  const w = picture ? picture.width * scale : 0, h = picture ? picture.height * scale : 0;
  return { width, height, x: (width - w) / 2 + view.x * ratio, y: (height - h) / 2 + view.y * ratio, w, h };
}

function draw() {
  const at = place();
  for (const canvas of [film, heat]) {
    if (canvas.width !== at.width || canvas.height !== at.height) { canvas.width = at.width; canvas.height = at.height; }
    canvas.getContext("2d").clearRect(0, 0, at.width, at.height);
  }
  film.style.filter = `brightness(${shades.brightness}%) contrast(${shades.contrast}%)${shades.inverted ? " invert(1)" : ""}`;
  if (!picture) return;
  const ground = film.getContext("2d");
  ground.fillStyle = "#000";
  ground.fillRect(at.x, at.y, at.w, at.h);
  ground.imageSmoothingQuality = "high";
  ground.drawImage(picture.bitmap, at.x, at.y, at.w, at.h);
  const rows = mapOn() && maps ? maps.maps[selected] : null;
  if (rows) drawMap(at, rows);
}

function drawMap(at, rows) {
  const context = heat.getContext("2d");
  // The map covers what the network saw: the film stretched to a square, or the film in a square with black borders.
  const side = Math.max(at.w, at.h), boxed = maps.fit === "letterbox";
  const square = boxed ? [at.x + (at.w - side) / 2, at.y + (at.h - side) / 2, side, side] : [at.x, at.y, at.w, at.h];
  context.save();
  context.beginPath();
  context.rect(at.x, at.y, at.w, at.h);
  context.clip();
  context.globalAlpha = find("opacity").value / 100;
  context.drawImage(painted(rows), ...square);
  context.restore();
}

function zoom(by, x = stage.clientWidth / 2, y = stage.clientHeight / 2) {
  const next = Math.min(Math.max(view.zoom * by, 0.5), 20), real = next / view.zoom;
  const fromX = x - stage.clientWidth / 2, fromY = y - stage.clientHeight / 2; // what is under the finger stays there
  view = { zoom: next, x: fromX + (view.x - fromX) * real, y: fromY + (view.y - fromY) * real };
  draw();
}

function move(x, y) { view.x += x; view.y += y; draw(); }
function fit() { view = { zoom: 1, x: 0, y: 0 }; draw(); }

function shade(change) {
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  Object.assign(shades, change);
  shades.brightness = clamp(shades.brightness, 20, 300);
  shades.contrast = clamp(shades.contrast, 20, 400);
  find("brightness").value = shades.brightness;
  find("contrast").value = shades.contrast;
  find("invert").setAttribute("aria-pressed", String(shades.inverted));
  draw();
}

function reset() { fit(); shade({ brightness: 100, contrast: 100, inverted: false }); }

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  find("theme").textContent = theme === "dark" ? "Light" : "Dark";
  try { localStorage.setItem("theme", theme); } catch { /* a browser that keeps nothing */ }
}

const otherTheme = () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");

// --- hands -------------------------------------------------------------------------------------------------------

const pointers = new Map();

function pointerMoved(event) {
  const before = pointers.get(event.pointerId);
  if (!before) return;
  const now = { x: event.clientX, y: event.clientY };
  if (pointers.size === 1 && event.shiftKey) {
    shade({ contrast: shades.contrast + now.x - before.x, brightness: shades.brightness - (now.y - before.y) });
  } else if (pointers.size === 1) {
    move(now.x - before.x, now.y - before.y);
  } else {
    const other = [...pointers].find(([id]) => id !== event.pointerId)[1], box = stage.getBoundingClientRect();
    const distance = (a, b) => Math.hypot(a.x - b.x, a.y - b.y) || 1;
    zoom(distance(now, other) / distance(before, other), (now.x + other.x) / 2 - box.left, (now.y + other.y) / 2 - box.top);
  }
  pointers.set(event.pointerId, now);
}

function keyPressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.target.matches("input[type=range]") && event.key.startsWith("Arrow")) return;
  const way = event.shiftKey ? -1 : 1;
  const keys = {
    o: () => find("file").click(), "+": () => zoom(1.25), "=": () => zoom(1.25), "-": () => zoom(0.8), 0: reset,
    b: () => shade({ brightness: shades.brightness + 10 * way }), c: () => shade({ contrast: shades.contrast + 10 * way }),
    i: () => shade({ inverted: !shades.inverted }), h: toggleMap, j: () => step(1), k: () => step(-1), t: otherTheme,
    "?": () => find("help").showModal(), escape: () => { if (asking) asking.abort(); },
    arrowleft: () => move(40, 0), arrowright: () => move(-40, 0), arrowup: () => move(0, 40), arrowdown: () => move(0, -40),
  };
  const arrow = event.key.startsWith("Arrow");
  if (arrow && document.activeElement !== stage) return; // elsewhere they scroll
  const call = keys[event.key.toLowerCase()];
  if (call) { event.preventDefault(); call(); }
}

function wire() {
  find("file").addEventListener("change", (event) => { read(event.target.files[0]); event.target.value = ""; });
  for (const [id, call] of Object.entries({
    open: () => find("file").click(), "zoom-in": () => zoom(1.25), "zoom-out": () => zoom(0.8), fit: reset, map: toggleMap,
    invert: () => shade({ inverted: !shades.inverted }), cancel: () => { if (asking) asking.abort(); }, theme: otherTheme,
    keys: () => find("help").showModal(), anyway: () => read(file, true),
  })) find(id).addEventListener("click", call);
  for (const name of ["brightness", "contrast"]) {
    find(name).addEventListener("input", (event) => shade({ [name]: Number(event.target.value) }));
  }
  find("opacity").addEventListener("input", draw);
  for (const name of ["dragenter", "dragover"]) {
    document.addEventListener(name, (event) => { event.preventDefault(); stage.classList.add("over"); });
  }
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) stage.classList.remove("over"); });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    stage.classList.remove("over");
    read(event.dataTransfer.files[0]);
  });
  stage.addEventListener("pointerdown", (event) => {
    if (!picture || event.target.closest("button")) return;
    stage.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  });
  stage.addEventListener("pointermove", pointerMoved);
  for (const name of ["pointerup", "pointercancel"]) stage.addEventListener(name, (event) => pointers.delete(event.pointerId));
  stage.addEventListener("wheel", (event) => {
    if (!picture) return;
    event.preventDefault();
    const box = stage.getBoundingClientRect();
    zoom(Math.exp(-event.deltaY / 400), event.clientX - box.left, event.clientY - box.top);
  }, { passive: false });
  stage.addEventListener("dblclick", reset);
  document.addEventListener("keydown", keyPressed);
  new ResizeObserver(draw).observe(stage);
  let theme = null;
  try { theme = localStorage.getItem("theme"); } catch { /* a browser that keeps nothing */ }
  setTheme(theme === "light" ? "light" : "dark");
}

wire();
