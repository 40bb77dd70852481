"use strict";
// The page of `curate review`: items of a queue, their pictures, and decisions by keys or clicks.
//
// Where it comes from decides what it asks: a server answers requests and writes decisions (`Served`); an export lies in
// files (`Files`), whose scripts hand pages over, and keeps decisions until they are downloaded. All else is the same.
// Text of strangers enters the page as text alone, never as markup.

const byId = (id) => document.getElementById(id);
const isFiles = document.documentElement.dataset.mode === "files";
const number = (value) => value.toLocaleString("en-US");
const THUMBNAILS = 4;
const NO_PICTURE = new Set(["unavailable", "unreadable", "empty", "not_an_image", "unsupported", "too_large", "too_slow"]);
const isNarrow = () => matchMedia("(max-width: 960px)").matches;

function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "class") made.className = value;
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

// -- where it comes from ------------------------------------------------------------------------------------------

class Served {
  async run() { return this.get("run"); }
  async page(queue, page, filter) { return this.get("page", {queue, page, filter}); }
  async members(queue, item, start) { return this.get("members", {queue, item, start}); }
  async decisions() { return this.get("decisions"); }
  async decide(decision, image, other) {
    return this.post("decide", {decision, image: image.id, other: other ? other.id : null});
  }
  async part(queue, one) { return this.post("part", {queue, item: one.number}); }
  async undo(shown) { return this.post("undo", {shown}); }
  async forget(about, shown) { return this.post("forget", {about, shown}); }
  thumbnail(image) { return `thumbnail/${image.id}`; }
  picture(image) { return `picture/${image.id}`; }
  async why(address) {
    const answer = await fetch(address);
    return answer.ok ? "" : answer.text();
  }
  async get(name, values = {}) { return this.read(await fetch(`api/${name}?${new URLSearchParams(values)}`)); }
  async post(name, values) {
    const headers = {"Content-Type": "application/json"};
    return this.read(await fetch(`api/${name}`, {method: "POST", headers, body: JSON.stringify(values)}));
  }
  async read(answer) {
    const type = answer.headers.get("Content-Type") || "";
    const found = type.startsWith("application/json") ? await answer.json() : {error: await answer.text()};
    if (!answer.ok) throw new Error(found.error);
    return found;
  }
}

class Files {
  constructor() {
    this.waiting = new Map();
    this.pages = new Map();
    this.rows = [];
    this.done = [];
    window.curateReview = {receive: (kind, value) => this.waiting.get(kind)?.(value)};
    window.addEventListener("beforeunload", (event) => { if (this.done.length) event.preventDefault(); });
  }
  load(address, kind) {
    const next = (this.last || Promise.resolve()).catch(() => {}).then(() => new Promise((resolve, reject) => {
      const fail = () => reject(new Error(`${address} is not there`));
      this.waiting.set(kind, resolve);
      document.head.append(el("script", {src: address, onerror: fail}));
    }));
    this.last = next;
    return next;
  }
  async run() {
    this.about = await this.load("data/run.js", "run");
    this.rows = this.about.known;
    return this.about;
  }
  async whole(queue, page) {
    const address = `data/${queue}-${page}.js`;
    if (!this.pages.has(address)) {
      if (this.pages.size > 40) this.pages.delete(this.pages.keys().next().value);
      this.pages.set(address, await this.load(address, "page"));
    }
    return this.pages.get(address);
  }
  async page(queue, page, filter) {
    const size = this.about.pageItems;
    const count = this.about.queues.find((one) => one.name === queue).count;
    const pages = Math.max(1, Math.ceil(count / size));
    if (!filter) {
      const at = Math.min(page, pages - 1);
      const items = count ? (await this.whole(queue, at)).items : [];
      return {queue, page: at, pages, total: count, items: this.marked(items)};
    }
    const text = filter.toLowerCase();
    const fits = (image) => ["source", "key", "uri", "reason", "detail", "evidence"]
      .some((name) => (image[name] || "").toLowerCase().includes(text));
    const found = [];
    for (let at = 0; at < pages && count; at += 1) {
      found.push(...(await this.whole(queue, at)).items.filter((item) => item.images.some(fits)));
    }
    const all = Math.max(1, Math.ceil(found.length / size));
    const at = Math.min(page, all - 1);
    const items = this.marked(found.slice(at * size, (at + 1) * size));
    return {queue, page: at, pages: all, total: found.length, items};
  }
  async members() { return []; }
  async decisions() { return [...this.rows]; }
  async decide(decision, image, other) {
    return this.add([this.row(decision, image.name, other ? other.name : "")]);
  }
  async part(queue, one) {
    if (one.more) throw new Error("not all images of this group are part of this page");
    const own = one.images.filter((image) => image.role === "pool" && !image.reason);
    return this.add(own.map((image) => this.row("not-copies", image.name, "")));
  }
  row(decision, image, other) {
    return {image, decision, other, note: "", about: other && other < image ? [other, image] : [image, other]};
  }
  add(rows) {
    return this.change([...rows, ...this.rows.filter((one) => !rows.some((row) => this.same(one, row)))], rows);
  }
  async undo() {
    if (this.done.length) this.rows = this.done.pop();
    return this.told([]);
  }
  async forget(about) { return this.change(this.rows.filter((row) => !this.same(row, {about})), []); }
  same(one, two) { return one.about.join("\n") === two.about.join("\n"); }
  change(rows, done) {
    this.done.push(this.rows);
    this.rows = rows;
    return this.told(done);
  }
  told(done) { return {done, decisions: this.rows.length, undo: this.done.length, marks: null}; }
  marked(items) {
    for (const image of items.flatMap((item) => item.images)) image.marks = this.marksOf(image);
    return items;
  }
  marksOf(image) {
    const names = new Set([image.name, image.key, image.uri]);
    return this.rows.filter((row) => names.has(row.image) || (row.other && names.has(row.other)));
  }
  thumbnail(image) { return this.about.missing[image.id] ? "" : `thumbnails/${image.id}.jpg`; }
  picture(image) {
    const suffix = this.about.suffixes[image.id];
    return suffix ? `pictures/${image.id}${suffix}` : this.thumbnail(image);
  }
  async why(address) {
    const id = (/(\d+)\.\w+$/.exec(address) || [])[1];
    return this.about.missing[id] || "this picture was not written";
  }
  download() {
    const field = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    const rows = [...this.rows].reverse().map((row) => [row.image, row.decision, row.other, row.note]);
    const text = [["image", "decision", "other", "note"], ...rows].map((row) => row.map(field).join(",") + "\n").join("");
    const address = URL.createObjectURL(new Blob([text], {type: "text/csv"}));
    el("a", {href: address, download: "decisions.csv"}).click();
    setTimeout(() => URL.revokeObjectURL(address), 1000);
    this.done = [];
  }
}

const source = isFiles ? new Files() : new Served();

// -- what is shown ------------------------------------------------------------------------------------------------

const state = {queue: "", page: 0, filter: "", item: 0, picture: 0, items: [], pages: 1, total: 0};
let about = null;

const item = () => state.items[state.item];
const picture = () => item()?.images[state.picture];

function partner() {
  const images = item()?.images || [];
  return state.picture > 0 ? images[0] : images[1];
}

function say(text, isError = false) {
  for (const id of ["said", "viewer-said"]) {
    byId(id).textContent = text;
    byId(id).classList.toggle("error", isError);
  }
}

async function attempt(work) {
  try {
    return await work();
  } catch (error) {
    say(error.message || "the server does not answer; is `curate review` still running?", true);
    return undefined;
  }
}

async function open(change) {
  const wanted = {queue: state.queue, page: state.page, filter: state.filter, ...change};
  document.body.classList.add("busy");
  const found = await attempt(() => source.page(wanted.queue, wanted.page, wanted.filter));
  document.body.classList.remove("busy");
  if (!found) return;
  say("");
  Object.assign(state, {queue: found.queue, filter: wanted.filter, page: found.page, pages: found.pages});
  Object.assign(state, {items: found.items, total: found.total});
  showQueues();
  showTiles();
  chooseItem(change.item === "last" ? found.items.length - 1 : Math.min(change.item || 0, found.items.length - 1));
}

function showQueues() {
  for (const button of byId("queues").querySelectorAll("button")) {
    button.setAttribute("aria-current", button.dataset.queue === state.queue ? "page" : "false");
  }
  byId("queue-choice").value = state.queue;
  byId("queue-about").textContent = about.queues.find((queue) => queue.name === state.queue).about;
  const first = state.page * about.pageItems;
  const last = first + state.items.length;
  const fitting = state.filter ? " that fit" : "";
  byId("place").textContent = state.total ? `${number(first + 1)} to ${number(last)} of ${number(state.total)}${fitting}` : "";
  byId("previous-page").disabled = state.page === 0;
  byId("next-page").disabled = state.page + 1 >= state.pages;
}

function missing(image, address) {
  const box = el("span", {class: "missing"}, "no picture");
  if (NO_PICTURE.has(image.reason)) {
    box.textContent = image.reason.replaceAll("_", " ");
    return box;
  }
  source.why(address).then((why) => { box.textContent = why || "the browser cannot show it"; }).catch(() => {});
  return box;
}

function shot(image, address, attributes = {}) {
  if (!address || NO_PICTURE.has(image.reason)) return missing(image, `${image.id}.jpg`);
  const made = el("img", {src: address, alt: image.key, decoding: "async", ...attributes});
  made.addEventListener("error", () => made.replaceWith(missing(image, address)), {once: true});
  return made;
}

// Of a pair that is no copies there is something to see where both of its images are.
function marksWithin(images, image) {
  const isHere = (mark) => images.some((one) => one !== image && one.marks.some((other) => `${other.about}` === `${mark.about}`));
  return image.marks.filter((mark) => !mark.other || isHere(mark));
}

function badges(images, image) {
  return marksWithin(images, image).map((mark) => el("span", {class: `badge ${mark.decision}`}, mark.decision.replace("-", " ")));
}

function showTiles() {
  const tiles = state.items.map((one, at) => {
    const shown = one.images.slice(0, THUMBNAILS);
    const rest = one.images.length + one.more - shown.length;
    const thumbnails = shown.map((image) => shot(image, source.thumbnail(image), {alt: "", loading: "lazy"}));
    if (rest > 0) thumbnails.push(el("span", {class: "rest"}, `+${number(rest)}`));
    const marks = el("span", {class: "tile-marks"});
    const words = el("span", {class: "tile-title"}, one.title);
    const names = one.images.length > 1 ? null : el("span", {class: "tile-name dim"}, one.images[0]?.key || "");
    return el("li", {}, el("button", {type: "button", class: "tile", onclick: () => chooseItem(at)},
      el("span", {class: `thumbs of-${thumbnails.length}`}, ...thumbnails), words, names, marks));
  });
  byId("tiles").replaceChildren(...tiles);
  state.items.forEach((_, at) => showTileMarks(at));
  if (!tiles.length) byId("tiles").append(el("li", {class: "nothing"}, state.filter ? "Nothing fits the filter." : "Nothing here."));
}

function showTileMarks(at) {
  const tile = byId("tiles").children[at];
  const images = state.items[at].images;
  const marks = images.flatMap((image) => marksWithin(images, image).map((mark) => mark.decision));
  const kinds = [...new Set(marks)].map((kind) => el("span", {class: `badge ${kind}`}, kind.replace("-", " ")));
  tile.querySelector(".tile-marks").replaceChildren(...kinds);
}

function chooseItem(at) {
  state.item = Math.max(0, at);
  for (const [place, tile] of [...byId("tiles").querySelectorAll(".tile")].entries()) {
    tile.setAttribute("aria-current", place === state.item ? "true" : "false");
    if (place === state.item && !isNarrow()) tile.scrollIntoView({block: "nearest"});
  }
  const images = item()?.images || [];
  const gone = images.findIndex((image) => image.verdict === "dropped" || image.verdict === "contaminated");
  state.picture = gone >= 0 ? gone : Math.max(0, images.length - 1);
  history.replaceState(null, "", `#${state.queue}/${state.page + 1}/${state.item + 1}/${encodeURIComponent(state.filter)}`);
  showItem();
  if (isNarrow()) scrollTo(0, 0);
  else byId("item").scrollTo(0, 0);
}

function measures(image) {
  const facts = [];
  if (image.width) facts.push(`${number(image.width)}\u00a0×\u00a0${number(image.height)}`);
  if (image.format) facts.push(image.format);
  if (image.bytes !== null) facts.push(size(image.bytes));
  return facts.join(", ");
}

function size(bytes) {
  return bytes < 1e6 ? `${number(Math.max(1, Math.round(bytes / 1e3)))}\u00a0kB` : `${number(Math.round(bytes / 1e5) / 10)}\u00a0MB`;
}

function evidence(image) {
  if (image.reason) return image.reason.replaceAll("_", " ");
  if (image.decided && image.verdict !== "contaminated") return `by your decision: ${image.decided.replace("-", " ")}`;
  if (image.similarity === null) return "";
  const found = image.evidence === "sha256" ? "same bytes" : `${image.similarity.toFixed(3)} ${image.evidence}`;
  return image.direct === false ? `${found}, with another of the group` : found;
}

function figure(image, at) {
  const chosen = at === state.picture;
  const frame = el("button", {type: "button", class: "shot", "aria-pressed": String(chosen),
    "aria-label": `Choose ${image.key}`, onclick: () => choosePicture(at), ondblclick: () => openViewer("one")},
    shot(image, source.picture(image), {loading: at < 6 ? "eager" : "lazy"}));
  const words = el("span", {class: `verdict ${image.verdict}`}, image.verdict);
  return el("figure", {class: chosen ? "chosen" : "", "data-image": image.id}, frame, el("figcaption", {},
    el("span", {class: "line"}, words, ...badges(item().images, image), el("span", {class: "dim"}, evidence(image))),
    el("span", {class: "key", title: image.uri}, image.key),
    el("span", {class: "dim"}, [image.source, measures(image)].filter(Boolean).join(" · "))));
}

function showItem() {
  const one = item();
  const queue = about.queues.find((found) => found.name === state.queue);
  byId("item-about").textContent = one ? `${queue.section}: ${queue.title}. Item ${number(one.number + 1)}.` : queue.title;
  byId("item-title").textContent = one ? one.title : "Nothing to see";
  byId("pictures").replaceChildren(...(one ? one.images.map(figure) : []));
  byId("pictures").className = one && one.images.length > 2 ? "many" : "few";
  const more = byId("more-pictures");
  more.hidden = !one || one.more <= 0;
  if (!more.hidden) more.textContent = isFiles ? `${number(one.more)} more are not part of this page` : `Show more of ${number(one.more)}`;
  more.disabled = isFiles;
  showActions();
}

function choosePicture(at) {
  const images = item()?.images || [];
  if (!images.length) return;
  state.picture = (at + images.length) % images.length;
  byId("pictures").querySelectorAll("figure").forEach((one, place) => {
    one.classList.toggle("chosen", place === state.picture);
    one.querySelector(".shot").setAttribute("aria-pressed", String(place === state.picture));
    if (place === state.picture) one.scrollIntoView({block: "nearest"});
  });
  showActions();
}

function refusal(kind) {
  const image = picture();
  if (!image) return "there is no picture";
  if (image.reason) return "a rejected image stays out whatever is decided";
  if (kind === "not-copies") {
    return image.role === "pool" || partner()?.role === "pool" ? "" : "choose an image of the pool";
  }
  return image.role === "pool" ? "" : `${image.role} images stay as they are`;
}

function showActions() {
  for (const button of byId("actions").querySelectorAll("[data-decide]")) {
    button.disabled = refusal(button.dataset.decide) !== "";
  }
  byId("undo").disabled = about.undo === 0;
  byId("part").hidden = !item() || item().images.length < 3;
  byId("show-full").disabled = !picture();
  byId("show-compare").disabled = !partner();
  byId("num-decisions").textContent = number(about.decisions);
}

// -- moving and deciding ------------------------------------------------------------------------------------------

// What keys and buttons ask for is done one after the other: a decision that is typed while the next page is on its way
// is about that page.
let last = Promise.resolve();
function inTurn(action) {
  last = last.then(action).catch((error) => say(error.message, true));
  return last;
}

function step(by) {
  const at = state.item + by;
  if (at >= 0 && at < state.items.length) return chooseItem(at);
  if (at < 0 && state.page > 0) return open({page: state.page - 1, item: "last"});
  if (at > 0 && state.page + 1 < state.pages) return open({page: state.page + 1});
  return undefined;
}

function stepQueue(by) {
  const names = about.queues.map((queue) => queue.name);
  return open({queue: names[(names.indexOf(state.queue) + by + names.length) % names.length], page: 0});
}

function stepPage(by) {
  if (state.page + by >= 0 && state.page + by < state.pages) return open({page: state.page + by});
  return undefined;
}

const shownIds = () => (item()?.images || []).slice(0, 200).map((image) => image.id);

async function decide(kind) {
  const why = refusal(kind);
  if (why) return say(`${kind}: ${why}`, true);
  const image = picture();
  const isPair = kind === "not-copies" && item().images.length + item().more === 2;
  const found = await attempt(() => source.decide(kind, image, isPair ? partner() : null));
  if (!found) return undefined;
  const [done] = found.done;
  take(found);
  return say(`Written: ${done.decision.replace("-", " ")}, ${done.image}${done.other ? ` and ${done.other}` : ""}. u takes it back.`);
}

async function part() {
  const one = item();
  if (!one || one.images.length < 3) return say("None are copies: for groups of three and more; x is for pairs.", true);
  const found = await attempt(() => source.part(state.queue, one));
  if (!found) return undefined;
  take(found);
  return say(`Written: not copies, ${number(found.done.length)} images. u takes it back.`);
}

async function undo() {
  if (!about.undo) return say("There is nothing to take back.");
  const found = await attempt(() => source.undo(shownIds()));
  if (found) {
    take(found);
    say("Taken back.");
  }
  return undefined;
}

function take(found) {
  about.decisions = found.decisions;
  about.undo = found.undo;
  for (const image of state.items.flatMap((one) => one.images)) {
    if (found.marks === null) image.marks = source.marksOf(image);
    else if (found.marks[image.id]) image.marks = found.marks[image.id];
  }
  state.items.forEach((_, at) => showTileMarks(at));
  const place = state.picture;
  byId("pictures").querySelectorAll("figure").forEach((one, at) => {
    const line = one.querySelector(".line");
    line.querySelectorAll(".badge").forEach((badge) => badge.remove());
    line.querySelector(".verdict").after(...badges(item().images, item().images[at]));
  });
  state.picture = place;
  showActions();
}

async function morePictures() {
  const one = item();
  const found = await attempt(() => source.members(state.queue, one.number, one.images.length));
  if (!found || item() !== one) return;
  const place = one.images.length;
  one.images.push(...found);
  one.more = Math.max(0, one.more - found.length);
  const chosen = state.picture;
  showItem();
  choosePicture(found.length ? place : chosen);
}

// -- full size ----------------------------------------------------------------------------------------------------

const viewer = {mode: "one", zoom: 0, timer: 0};
const GAP = 12;
const MODES = ["one", "beside", "overlay", "flicker", "difference"];

function openViewer(mode) {
  if (!picture()) return;
  viewer.zoom = 0;
  if (!byId("viewer").open) byId("viewer").showModal();
  byId("stage").focus();
  setMode(mode !== "one" && !partner() ? "one" : mode);
}

function setMode(mode) {
  viewer.mode = mode;
  clearInterval(viewer.timer);
  for (const button of byId("modes").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(button.dataset.mode === mode));
    button.disabled = button.dataset.mode !== "one" && !partner();
  }
  byId("opacity-label").hidden = mode !== "overlay";
  const images = mode === "one" ? [picture()] : [partner(), picture()];
  byId("viewer-title").textContent = images.map((image) => `${image.key} (${measures(image)})`).join("  |  ");
  byId("stage").className = "";
  byId("stage").dataset.mode = mode;
  byId("stage").replaceChildren(...images.map((image) => shot(image, source.picture(image))));
  for (const one of byId("stage").querySelectorAll("img")) one.addEventListener("load", showZoom, {once: true});
  if (mode === "flicker" && !matchMedia("(prefers-reduced-motion: reduce)").matches) viewer.timer = setInterval(flip, 450);
  showOpacity();
  showZoom();
}

function flip() { byId("stage").classList.toggle("flipped"); }

function showOpacity() {
  const upper = byId("stage").querySelectorAll("img")[1];
  if (upper) upper.style.opacity = viewer.mode === "overlay" ? byId("opacity").value / 100 : "";
}

function showZoom() {
  const shots = [...byId("stage").querySelectorAll("img")];
  const stacked = !["one", "beside"].includes(viewer.mode);
  const width = Math.max(1, ...shots.map((one) => one.naturalWidth));
  const height = Math.max(1, ...shots.map((one) => one.naturalHeight));
  const stage = byId("stage");
  const fitting = (columns, rows) => Math.min(
    (stage.clientWidth - GAP * (columns - 1)) / columns / width, (stage.clientHeight - GAP * (rows - 1)) / rows / height);
  const several = viewer.mode === "beside" ? shots.length || 1 : 1;
  const [beside, below] = [fitting(several, 1), fitting(1, several)];
  stage.classList.toggle("rows", below > beside);
  const fit = Math.max(beside, below);
  const zoom = viewer.zoom || Math.min(fit, 8);
  for (const one of shots) {
    one.style.width = `${Math.floor((stacked ? width : one.naturalWidth) * zoom)}px`;
    one.style.height = `${Math.floor((stacked ? height : one.naturalHeight) * zoom)}px`;
  }
  byId("zoom-value").textContent = viewer.zoom ? `${Math.round(100 * viewer.zoom)} %` : `fit, ${Math.round(100 * zoom)} %`;
  viewer.shown = zoom;
}

function setZoom(zoom) {
  viewer.zoom = zoom && Math.min(16, Math.max(0.05, zoom));
  showZoom();
}

function viewerPicture(by) {
  choosePicture(state.picture + by);
  setMode(viewer.mode === "one" || partner() ? viewer.mode : "one");
}

const VIEWER_KEYS = {
  ArrowRight: () => viewerPicture(1), ArrowLeft: () => viewerPicture(-1),
  "+": () => setZoom(viewer.shown * 1.5), "=": () => setZoom(viewer.shown * 1.5), "-": () => setZoom(viewer.shown / 1.5),
  z: () => setZoom(viewer.zoom ? 0 : 1), " ": flip, f: () => byId("viewer").close(), c: () => setMode(MODES[(MODES.indexOf(viewer.mode) + 1) % MODES.length]),
  k: () => decide("keep"), d: () => decide("drop"), x: () => decide("not-copies"), r: () => decide("represent"), u: undo,
};
MODES.forEach((mode, at) => { VIEWER_KEYS[at + 1] = () => (mode === "one" || partner()) && setMode(mode); });

// -- dialogs ------------------------------------------------------------------------------------------------------

async function showDecisions() {
  const rows = await attempt(() => source.decisions());
  if (!rows) return;
  byId("decisions-file").textContent = isFiles ? "Kept in this page until you download them." : `In ${about.file}`;
  byId("apply").textContent = about.apply;
  byId("download").hidden = !isFiles;
  byId("decision-rows").replaceChildren(...rows.slice(0, 200).map((row) => el("li", {},
    el("span", {class: `badge ${row.decision}`}, row.decision.replace("-", " ")),
    el("span", {class: "key"}, row.image, row.other ? ` and ${row.other}` : "", row.note ? el("span", {class: "dim"}, ` ${row.note}`) : null),
    el("button", {type: "button", "aria-label": `Remove: ${row.decision} ${row.image}`, onclick: () => inTurn(() => forget(row))}, "Remove"))));
  byId("decisions-more").textContent = rows.length > 200 ? `and ${number(rows.length - 200)} more in the file` : rows.length ? "" : "None yet.";
  if (!byId("decisions").open) byId("decisions").showModal();
}

async function forget(row) {
  const found = await attempt(() => source.forget(row.about, shownIds()));
  if (!found) return;
  take(found);
  await showDecisions();
}

const KEYS = [
  ["↓  ↑", "next, previous item", {ArrowDown: () => step(1), ArrowUp: () => step(-1)}],
  ["→  ←", "next, previous picture of the item", {ArrowRight: () => choosePicture(state.picture + 1), ArrowLeft: () => choosePicture(state.picture - 1)}],
  ["n  p", "next, previous page", {n: () => stepPage(1), p: () => stepPage(-1)}],
  ["]  [", "next, previous queue", {"]": () => stepQueue(1), "[": () => stepQueue(-1)}],
  ["k", "keep the chosen picture", {k: () => decide("keep")}],
  ["d", "drop it", {d: () => decide("drop")}],
  ["x", "not copies: it and the other one, or it and its group", {x: () => decide("not-copies")}],
  ["X", "no image of the group is a copy of another", {X: part}],
  ["r", "represent: it stays for its group", {r: () => decide("represent")}],
  ["u", "undo the last decision", {u: undo}],
  ["f", "full size; z: fit or 100 %, + and -: zoom", {f: () => openViewer("one")}],
  ["c", "compare: side by side, overlay, flicker, difference (2 to 5)", {c: () => openViewer("beside")}],
  ["m", "more pictures of a large group", {m: () => byId("more-pictures").hidden || morePictures()}],
  ["/", "filter; Enter applies it, Esc leaves it", {"/": () => { byId("filter").focus(); byId("filter").select(); }}],
  ["l", "list of all decisions, and how to apply them", {l: showDecisions}],
  ["?", "this help", {"?": () => byId("help").showModal()}],
];
const ACTIONS = Object.assign({}, ...KEYS.map((row) => row[2]));

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  const target = event.target;
  if (target.matches("input[type=search], select, textarea")) {
    if (event.key === "Escape") target.blur();
    return;
  }
  const isOpen = (id) => byId(id).open;
  if (isOpen("help") || isOpen("decisions")) return;
  if (isOpen("viewer") && target.matches("input[type=range]") && event.key.startsWith("Arrow")) return;
  if (isOpen("viewer") && event.key === " " && target.matches("button")) return;
  const action = (isOpen("viewer") ? VIEWER_KEYS : ACTIONS)[event.key];
  if (!action || !about) return;
  event.preventDefault();
  inTurn(action);
}

// -- beginning ----------------------------------------------------------------------------------------------------

function listQueues() {
  const sections = new Map();
  for (const queue of about.queues) sections.set(queue.section, [...(sections.get(queue.section) || []), queue]);
  for (const [section, queues] of sections) {
    byId("queues").append(el("h2", {}, section), el("ul", {}, ...queues.map((queue) => el("li", {},
      el("button", {type: "button", "data-queue": queue.name, title: queue.about, onclick: () => inTurn(() => open({queue: queue.name, page: 0}))},
        el("span", {}, queue.title), el("span", {class: "count"}, number(queue.count)))))));
    byId("queue-choice").append(el("optgroup", {label: section}, ...queues.map((queue) =>
      el("option", {value: queue.name}, `${section}: ${queue.title} (${number(queue.count)})`))));
  }
}

function listen() {
  const onClick = (id, action) => byId(id).addEventListener("click", () => inTurn(action));
  document.addEventListener("keydown", onKey);
  byId("filter-form").addEventListener("submit", (event) => {
    event.preventDefault();
    byId("filter").blur();
    inTurn(() => open({filter: byId("filter").value.trim(), page: 0}));
  });
  byId("filter").addEventListener("search", () => { if (!byId("filter").value && state.filter) inTurn(() => open({filter: "", page: 0})); });
  byId("queue-choice").addEventListener("change", (event) => inTurn(() => open({queue: event.target.value, page: 0})));
  onClick("previous-page", () => stepPage(-1));
  onClick("next-page", () => stepPage(1));
  onClick("previous-item", () => step(-1));
  onClick("next-item", () => step(1));
  onClick("more-pictures", morePictures);
  onClick("undo", undo);
  onClick("part", part);
  onClick("show-full", () => openViewer("one"));
  onClick("show-compare", () => openViewer("beside"));
  onClick("show-help", () => byId("help").showModal());
  onClick("show-decisions", showDecisions);
  onClick("close-viewer", () => byId("viewer").close());
  onClick("zoom-in", () => setZoom(viewer.shown * 1.5));
  onClick("zoom-out", () => setZoom(viewer.shown / 1.5));
  onClick("zoom-fit", () => setZoom(viewer.zoom ? 0 : 1));
  onClick("copy-apply", () => navigator.clipboard?.writeText(about.apply).then(() => say("Copied."), () => say("The browser does not allow it.", true)));
  onClick("download", () => { source.download(); showActions(); about.undo = 0; });
  for (const button of byId("actions").querySelectorAll("[data-decide]")) {
    button.addEventListener("click", () => inTurn(() => decide(button.dataset.decide)));
  }
  for (const button of byId("modes").querySelectorAll("button")) button.addEventListener("click", () => setMode(button.dataset.mode));
  for (const button of document.querySelectorAll("dialog .close")) button.addEventListener("click", () => button.closest("dialog").close());
  byId("opacity").addEventListener("input", showOpacity);
  byId("viewer").addEventListener("close", () => { clearInterval(viewer.timer); byId("stage").replaceChildren(); });
  addEventListener("resize", () => { if (byId("viewer").open) showZoom(); });
  byId("keys").append(...KEYS.flatMap(([keys, meaning]) => [el("dt", {}, el("kbd", {}, keys)), el("dd", {}, meaning)]));
}

async function begin() {
  listen();
  about = await attempt(() => source.run());
  if (!about) return;
  byId("run").textContent = about.run;
  document.title = `Review of ${about.run}`;
  listQueues();
  const [queue, page, place, filter] = location.hash.slice(1).split("/");
  const known = about.queues.some((one) => one.name === queue);
  const first = about.queues.find((one) => one.count > 0) || about.queues[0];
  state.queue = known ? queue : first.name;
  byId("filter").value = known && filter ? decodeURIComponent(filter) : "";
  await open({page: known ? Math.max(0, page - 1) || 0 : 0, item: known ? Math.max(0, place - 1) || 0 : 0, filter: byId("filter").value});
}

begin();
