"use strict";

/* Pages of pictures: `.pages` holds `.page` elements, of which all but the first are hidden. */

function button(text, label, press) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.setAttribute("aria-label", label);
  made.addEventListener("click", press);
  return made;
}

for (const box of document.querySelectorAll(".pages")) {
  const pages = box.querySelectorAll(":scope > .page");
  const size = Number(box.dataset.size), total = Number(box.dataset.total);
  const said = document.createElement("span");
  said.setAttribute("aria-live", "polite");
  let at = 0;
  const turn = (step) => {
    pages[at].hidden = true;
    at = (at + step + pages.length) % pages.length;
    pages[at].hidden = false;
    said.textContent = `${at * size + 1} to ${Math.min(total, (at + 1) * size)} of ${total}`;
  };
  const pager = document.createElement("div");
  pager.className = "pager";
  pager.append(button("‹", "page before", () => turn(-1)), said, button("›", "next page", () => turn(1)));
  box.append(pager);
  turn(0);
}

/* A picture that is pressed opens at full size; the arrow keys go through those of its section. */

const pictures = JSON.parse(document.getElementById("pictures").textContent);
const viewer = document.createElement("dialog");
const large = document.createElement("img"), words = document.createElement("p");
let shown = null;

function source(opener) {
  const name = opener.dataset.picture, small = opener.querySelector("img").src;
  if (!name) return small;
  if (pictures.held[name]) return `data:image/jpeg;base64,${pictures.held[name]}`;
  return pictures.folder ? `${pictures.folder}/${name}` : small;
}

function open(opener) {
  const figure = opener.closest("figure"), small = opener.querySelector("img");
  shown = opener;
  large.onerror = () => { large.onerror = null; large.src = small.src; };
  large.alt = small.alt;
  large.src = source(opener);
  const told = [...figure.querySelectorAll("figcaption span:not(.name)")].map((line) => line.textContent);
  words.textContent = [figure.title, ...told].join(" · ");
  if (!viewer.open) {
    viewer.showModal();
    viewer.focus();
  }
}

function step(by) {
  const all = [...shown.closest("section").querySelectorAll(".open")];
  open(all[(all.indexOf(shown) + by + all.length) % all.length]);
}

viewer.className = "viewer";
viewer.tabIndex = -1;
viewer.append(large, words, button("‹", "picture before", () => step(-1)), button("›", "next picture", () => step(1)),
  button("×", "close", () => viewer.close()));
viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
viewer.addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") step(-1);
  else if (event.key === "ArrowRight") step(1);
});
document.body.append(viewer);
for (const opener of document.querySelectorAll(".open")) opener.addEventListener("click", () => open(opener));

/* Maps: colors are switched, and the point that is pointed at, or reached by the arrow keys, shows its picture. */

const AHEAD = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

for (const map of document.querySelectorAll("figure.map")) {
  const values = JSON.parse(map.querySelector("script").textContent);
  const drawing = map.querySelector("svg"), points = [...drawing.querySelectorAll("circle")];
  const tile = map.querySelector(".tile"), said = map.querySelector(".look p");
  const legends = map.querySelectorAll(".legend"), choices = map.querySelector(".switch");
  const places = points.map((point) => [point.cx.baseVal.value, point.cy.baseVal.value]);
  let colors = 0, at = -1;

  const color = (chosen) => {
    colors = chosen;
    points.forEach((point, i) => {
      const code = values.colorings[chosen].codes[i];
      point.setAttribute("class", (code < 0 ? "c" : `c${code}`) + (i === at ? " at" : ""));
    });
    legends.forEach((legend, i) => { legend.hidden = i !== chosen; });
    choices.querySelectorAll("button").forEach((one, i) => one.setAttribute("aria-pressed", String(i === chosen)));
  };
  const look = (i) => {
    if (at >= 0) points[at].classList.remove("at");
    at = i;
    points[i].classList.add("at");
    const sheet = Math.floor(i / values.columns ** 2), place = i % values.columns ** 2;
    tile.style.backgroundImage = values.sheets[sheet] ? `url("${values.sheets[sheet]}")` : "none";
    tile.style.backgroundPosition =
      `${-(place % values.columns) * values.tile}px ${-Math.floor(place / values.columns) * values.tile}px`;
    const told = values.colorings.map((one) => {
      const label = one.codes[i] < 0 ? "others" : one.labels[one.codes[i]];
      return label.startsWith(one.name) ? label : `${one.name}: ${label}`;
    });
    said.textContent = [values.names[i], ...told].join(" · ");
  };
  const nearest = (x, y, among = () => true) => {
    let best = -1, least = Infinity;
    places.forEach(([px, py], i) => {
      const distance = (px - x) ** 2 + (py - y) ** 2;
      if (distance < least && among(px - x, py - y, i)) { best = i; least = distance; }
    });
    return best;
  };
  const pointed = (event) => {
    const box = drawing.getBoundingClientRect(), view = drawing.viewBox.baseVal;
    const found = nearest((event.clientX - box.left) / box.width * view.width,
      (event.clientY - box.top) / box.height * view.height);
    if (found >= 0) look(found);
  };

  if (values.colorings.length > 1)
    values.colorings.forEach((one, i) => choices.append(button(one.name, `color by ${one.name}`, () => color(i))));
  drawing.addEventListener("pointermove", pointed);
  drawing.addEventListener("pointerdown", pointed);
  drawing.addEventListener("keydown", (event) => {
    const ahead = AHEAD[event.key];
    if (!ahead || !points.length) return;
    event.preventDefault();
    const [x, y] = at < 0 ? [0, 0] : places[at];
    const found = at < 0 ? nearest(x, y)
      : nearest(x, y, (dx, dy, i) => i !== at && dx * ahead[0] + dy * ahead[1] > Math.abs(dx * ahead[1] + dy * ahead[0]));
    if (found >= 0) look(found);
  });
  color(0);
}
