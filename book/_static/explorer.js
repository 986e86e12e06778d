// The explorer page: two maps of one picture beside each other, each a model and a method.
// Plain JavaScript. Data are scripts under data-root (tools/explorer.py), so that the page also
// works when it is opened from a disc, where a page may not fetch files.
"use strict";

(() => {
  const place = document.getElementById("look");
  if (!place) return;
  const root = place.dataset.root;
  const DIFFERENCE = "difference";
  const WORDS = "../explorer-words.js"; // maps of single words (tools/make_words.py)
  const CONTROLS = "maps/difference.js";
  const STATUS = {
    ok: "",
    no_crucial_tokens: "No word of this answer is crucial, so there is no map.",
    no_gap: "The picture hardly changes these words: the map says little.",
    diverged: "The method returned numbers that are not finite: there is no map.",
    constant: "The map has the same value everywhere and says nothing.",
    empty_answer: "The model answered nothing.",
    error: "The computation failed on this item.",
  };
  const AGREE = {
    all: "any",
    on: "at least 3 times chance",
    off: "below 1.5 times chance",
    none: "no map",
  };
  const side = { a: { word: null }, b: { word: null } };
  const parts = {};
  let data, turn = 0, ready = false;

  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name in element && typeof value !== "string") element[name] = value;
      else element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  };

  const load = (file) =>
    data?.loaded[file]
      ? Promise.resolve()
      : new Promise((done, failed) => {
          const script = make("script", { src: root + file });
          script.onload = done;
          script.onerror = () => failed(new Error(`${file} is missing`));
          document.head.append(script);
        });

  const unique = (values) => [...new Set(values)];
  const shown = (value, digits = 2) =>
    value === null || value === undefined ? "–" : value.toFixed(digits).replace("-", "−");
  const titled = (method) => data.titles[method] ?? method;

  // --- the parts of the page ("dark-light": the theme shall not lay pictures on white)

  function labelled(name, text, element, wide = false) {
    parts[name] = element;
    element.id = `explorer-${name}`;
    const label = make("label", { for: element.id }, text);
    return make("div", wide ? { class: "wide" } : {}, label, element);
  }

  function button(text, act, attributes = {}) {
    const element = make("button", { type: "button", ...attributes }, text);
    element.onclick = act;
    return element;
  }

  function build() {
    const examples = make("div", { class: "explorer-examples", role: "group", "aria-label": "Examples" });
    for (const each of data.examples) examples.append(button(each.title, () => start(each)));
    const item = labelled("item", "Question", make("select"), true);
    const pick = make("div", { class: "pick" }, parts.item);
    pick.append(
      button("‹", () => move(-1), { "aria-label": "previous question" }),
      button("›", () => move(1), { "aria-label": "next question" }),
    );
    item.append(pick);
    const filters = make("div", { class: "explorer-controls" });
    filters.append(
      labelled("category", "Kind of question", make("select")),
      labelled("verdict", "Answer of the left model", make("select")),
      labelled("agree", "Left map on the evidence", make("select")),
    );
    const controls = make("div", { class: "explorer-controls" });
    controls.append(
      labelled("world", "World", make("select")),
      item,
      make("details", { class: "wide" }, make("summary", {}, "Filter the questions"), filters),
    );
    parts.asked = make("p", { class: "explorer-asked" });
    const view = make("div", { class: "explorer-view" }, panel("a", "left"), panel("b", "right"));
    parts.scores = make("div", { class: "explorer-scores" });
    place.append(examples, controls, parts.asked, view, sliders(), parts.scores, again());
    place.append(make("p", { class: "quiet", role: "status", id: "explorer-said" }));
    for (const name of ["world", "category", "verdict", "agree"]) parts[name].onchange = fresh;
    parts.item.onchange = fresh;
  }

  function panel(key, name) {
    const own = side[key];
    own.picture = make("img", { class: "dark-light", alt: "" });
    own.map = make("canvas", { "aria-hidden": "true" });
    own.evidence = make("img", { class: "dark-light", alt: "", hidden: true });
    own.bar = make("div", { class: "explorer-bar", "aria-hidden": "true" });
    own.end = make("span");
    own.ends = make("div", { class: "explorer-ends" }, make("span", {}, "0"), own.end);
    own.words = make("div", { class: "explorer-words", role: "group", "aria-label": `words of the ${name} answer` });
    own.note = make("p", { class: "explorer-note" });
    const stage = make("div", { class: "explorer-stage" }, own.picture, own.map, own.evidence);
    const picks = ["model", "method"].map((what) =>
      labelled(key === "a" ? what : `${what}2`, what === "model" ? "Model" : "Method", make("select")),
    );
    for (const pick of picks) pick.lastChild.onchange = fresh;
    [own.model, own.method] = picks.map((pick) => pick.lastChild);
    const box = make("section", { class: "explorer-panel", "aria-label": `${name} map` });
    box.append(...picks, stage, own.bar, own.ends, own.words, own.note);
    return box;
  }

  function sliders() {
    parts.opacity = make("input", { type: "range", min: "0", max: "100", value: "100" });
    parts.outline = make("input", { type: "checkbox" });
    parts.opacity.oninput = parts.outline.onchange = paint;
    return make(
      "div",
      { class: "explorer-sliders" },
      make("label", {}, "Map", parts.opacity),
      make("label", {}, parts.outline, "Outline the evidence"),
    );
  }

  function again() {
    parts.command = make("code", { tabindex: "0" });
    const copy = (text, of) => async () => {
      await navigator.clipboard?.writeText(text());
      document.getElementById("explorer-said").textContent = `${of} copied`;
    };
    return make(
      "div",
      { class: "explorer-again" },
      make("p", {}, "Make the left map again:"),
      parts.command,
      button("Copy the command", copy(() => parts.command.textContent, "command")),
      button("Copy a link to this view", copy(() => location.href, "link")),
    );
  }

  function fill(select, values, texts = values) {
    const before = select.value;
    select.replaceChildren(...values.map((v, n) => make("option", { value: String(v) }, texts[n])));
    if (values.map(String).includes(before)) select.value = before;
  }

  // --- what can be picked

  const entry = (model, method) =>
    data.maps.find((one) => one.model === model && one.method === method);
  const modelOf = (name) => data.models.find((one) => one.name === name);
  const answersOf = (own) => data.loaded[modelOf(own.model.value).file];
  const scoresOf = (own) => mapsOf(own).scores;
  const mapsOf = (own) =>
    data.loaded[entry(own.model.value, own.method.value)?.file] ?? { scores: {}, maps: {} };

  function fillSides() {
    const world = parts.world.value;
    const here = data.models.filter((one) => one.worlds.includes(world)).map((one) => one.name);
    for (const own of Object.values(side)) {
      fill(own.model, here);
      const known = data.maps.filter((m) => m.model === own.model.value && m.worlds.includes(world));
      const names = unique([...known.map((m) => m.method), DIFFERENCE]);
      fill(own.method, names, names.map(titled));
    }
  }

  async function loadSides() {
    const files = Object.values(side).flatMap((own) => [
      modelOf(own.model.value).file,
      entry(own.model.value, own.method.value)?.file,
      entry(own.model.value, DIFFERENCE)?.file,
    ]);
    await Promise.all(unique([...files, CONTROLS]).filter(Boolean).map(load));
  }

  // How many times chance the left map has on the evidence; nothing where one of them is missing.
  function times(own, n) {
    const share = onEvidence(own, n);
    return share === undefined || !data.items[n].area ? undefined : share / data.items[n].area;
  }

  function onEvidence(own, n) {
    if (own.method.value === DIFFERENCE) return data.loaded[CONTROLS][n].on_evidence;
    return scoresOf(own)[n]?.on_evidence;
  }

  function fits(item, n) {
    const { world, category, verdict, agree } = parts;
    if (item.benchmark !== world.value) return false;
    if (category.value !== "all" && item.category !== category.value) return false;
    const said = answersOf(side.a)[n];
    if (verdict.value !== "all" && said?.verdict !== verdict.value) return false;
    const found = times(side.a, n);
    if (agree.value === "on") return found >= 3;
    if (agree.value === "off") return found < 1.5;
    if (agree.value === "none") return !mapsOf(side.a).maps[n] && side.a.method.value !== DIFFERENCE;
    return true;
  }

  function fillItems() {
    const kept = data.items.map((item, n) => ({ item, n })).filter(({ item, n }) => fits(item, n));
    fill(parts.item, kept.map(({ n }) => n), kept.map(({ item }) => `${item.question} (${item.id})`));
    return kept.length > 0;
  }

  function move(by) {
    const count = parts.item.options.length;
    if (count) parts.item.selectedIndex = (parts.item.selectedIndex + by + count) % count;
    fresh();
  }

  // --- showing it

  function fresh() {
    side.a.word = side.b.word = null;
    return show();
  }

  async function show() {
    const mine = ++turn;
    fillSides();
    await loadSides();
    if (mine !== turn) return;
    if (!fillItems()) {
      parts.asked.textContent = "No question fits all four choices; loosen one of them.";
      return;
    }
    const n = Number(parts.item.value), item = data.items[n];
    parts.asked.replaceChildren(make("strong", {}, item.question), ` Expected: ${item.reference}`);
    for (const own of Object.values(side)) tell(own, item, n);
    paint();
    table(item, n);
    command(item, n);
    remember(item);
    const gap = shown(scoresOf(side.a)[n]?.gap);
    document.getElementById("explorer-said").textContent =
      `${side.a.model.value}, ${titled(side.a.method.value)}: ${item.question} ` +
      `${answersOf(side.a)[n]?.text ?? ""} Insertion minus deletion ${gap}.`;
  }

  function tell(own, item, n) {
    own.picture.width = item.size[0];
    own.picture.height = item.size[1];
    own.picture.src = `${root}pictures/${n}.webp`;
    own.picture.alt = item.alt;
    if (item.area === null) own.evidence.removeAttribute("src");
    else own.evidence.src = `${root}evidence/${n}.png`;
    const said = answersOf(own)[n], { map, note } = chosen(own, said, n);
    draw(own, map);
    words(own, said);
    own.note.textContent = note;
  }

  // The map to show: of the crucial words, or of the word that was clicked; and what to say of it.
  function chosen(own, said, n) {
    if (own.method.value === DIFFERENCE)
      return { map: data.loaded[CONTROLS][n], note: "Picture minus blur: has seen no model and no question." };
    const map = mapsOf(own).maps[n], score = scoresOf(own)[n];
    const told = score ? STATUS[score.status] : "This method was not run on this question.";
    const control = score && !map && !told ? "Maps of this control are not stored, only its scores." : told;
    const word = said?.words[own.word];
    if (!word) return { map, note: control || "Map of the crucial words. Click a word." };
    const about = `“${word[0].trim()}”: log-likelihood ratio ${shown(word[1])} nats. `;
    if (word[2] && said.words.filter(([, , mark]) => mark).length === 1)
      return { map, note: about + "The only crucial word: the map is its own." };
    const single = ofWord(own, said, n);
    if (!single) return { map: undefined, note: about + "No map of this word alone is kept here; the command makes it." };
    const [, , status, cells] = single;
    return { map: cells && { shape: [32, 32], cells }, note: about + (STATUS[status] || "The map of this word alone.") };
  }

  function ofWord(own, said, n) {
    const kept = data.words?.items[data.items[n].id];
    if (kept?.answer !== said.text) return undefined;
    if (data.words.model !== own.model.value || data.words.method !== own.method.value) return undefined;
    const start = said.words.slice(0, own.word).reduce((sum, [text]) => sum + text.length, 0);
    const end = start + said.words[own.word][0].length;
    return kept.words.find(([from, to]) => from < end && to > start);
  }

  function draw(own, map) {
    own.map.hidden = own.bar.hidden = own.ends.hidden = !map;
    if (!map) return;
    const [height, width] = map.shape, method = own.method.value;
    const cells = Uint8Array.from(atob(map.cells), (letter) => letter.charCodeAt(0));
    const pixels = new ImageData(width, height);
    cells.forEach((value, place) => pixels.data.set(data.colours[value], 4 * place));
    Object.assign(own.map, { width, height });
    own.map.getContext("2d").putImageData(pixels, 0, 0);
    own.end.textContent = `${Number(data.scales[method].toPrecision(2))}`;
  }

  function paint() {
    parts.opacity.setAttribute("aria-valuetext", `${parts.opacity.value} percent`);
    for (const own of Object.values(side)) {
      own.map.style.opacity = parts.opacity.value / 100;
      own.evidence.hidden = !(parts.outline.checked && own.evidence.hasAttribute("src"));
    }
  }

  function words(own, said) {
    const focused = [...own.words.children].indexOf(document.activeElement);
    own.words.replaceChildren();
    if (!said) return own.words.append("This model was not asked this question.");
    const top = Math.max(...said.words.map(([, ratio]) => ratio ?? 0), 1e-9);
    said.words.forEach((each, place) => own.words.append(word(own, each, place, top)));
    const wrong = said.verdict === "correct" ? "✓ right" : `✗ ${said.verdict}`;
    const cut = said.truncated ? ", cut by the limit on new tokens" : "";
    own.words.append(make("span", { class: "verdict" }, wrong + cut));
    own.words.children[focused]?.focus();
  }

  function word(own, [text, ratio, crucial], place, top) {
    const strength = Math.max(0, Math.min(1, (ratio ?? 0) / top));
    const [red, green, blue] = data.colours[Math.round(255 * strength)];
    const act = () => ((own.word = own.word === place ? null : place), show());
    return button(text.trim(), act, {
      class: crucial ? "word crucial" : "word",
      "aria-pressed": String(own.word === place),
      title: `log-likelihood ratio ${shown(ratio)}${crucial ? ", crucial" : ""}`,
      style: `background: rgba(${red}, ${green}, ${blue}, ${(0.3 * strength).toFixed(2)})`,
    });
  }

  // --- numbers

  function table(item, n) {
    const columns = Object.values(side).map((own) => column(own.model.value, own.method.value, item, n));
    const both = Object.values(side).some((own) => own.method.value === DIFFERENCE);
    if (!both) columns.push(column(side.a.model.value, DIFFERENCE, item, n));
    const rows = columns[0].map(([name], row) =>
      make("tr", {}, make("th", { scope: "row" }, name), ...columns.map((each) => make("td", {}, each[row][1]))),
    );
    const heads = ["left", "right", DIFFERENCE].slice(0, columns.length);
    const head = make("tr", {}, make("td"), ...heads.map((text) => make("th", { scope: "col" }, text)));
    parts.scores.replaceChildren(make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows)));
  }

  function column(model, method, item, n) {
    const score = data.loaded[entry(model, method)?.file]?.scores[n];
    const share = method === DIFFERENCE ? data.loaded[CONTROLS][n].on_evidence : score?.on_evidence;
    const ratio = share !== undefined && item.area ? ` (${shown(share / item.area, 1)}×)` : "";
    return [
      ["Insertion", shown(score?.insertion)],
      ["Deletion", shown(score?.deletion)],
      ["Insertion − deletion", shown(score?.gap)],
      ["On the evidence (times chance)", share === undefined ? "–" : `${shown(100 * share, 0)} %${ratio}`],
    ];
  }

  function command(item, n) {
    const own = side.a, seed = scoresOf(own)[n]?.seed ?? 0;
    const text = answersOf(own)[n]?.words[own.word]?.[0].replace(/[^\p{L}\p{N}-]/gu, "");
    const word = text ? ` --word ${text}` : "";
    parts.command.textContent =
      `lvlm-study explain ${item.id} "${item.question}" --model ${own.model.value}` +
      ` --method "${own.method.value}" --seed ${seed}${word} --out look`;
  }

  // --- the address, and where to begin

  function remember(item) {
    if (!ready) return;
    const now = { model: side.a.model.value, method: side.a.method.value, item: item.id };
    now.model2 = side.b.model.value;
    now.method2 = side.b.method.value;
    const hash = Object.entries(now).map((pair) => pair.map(encodeURIComponent).join("=")).join("&");
    location.replace(`#${hash}`);
  }

  function start(asked) {
    const item = data.items.findIndex((one) => one.id === asked.item);
    for (const name of ["category", "verdict", "agree"]) parts[name].value = "all";
    if (item >= 0) parts.world.value = data.items[item].benchmark;
    fillSides();
    const pick = (select, value) => {
      if ([...select.options].some((option) => option.value === value)) select.value = value;
    };
    pick(side.a.model, asked.model);
    pick(side.b.model, asked.model2 ?? asked.model);
    fillSides();
    pick(side.a.method, asked.method);
    pick(side.b.method, asked.method2 ?? DIFFERENCE);
    fill(parts.item, data.items.map((_, n) => n));
    if (item >= 0) parts.item.value = String(item);
    return fresh();
  }

  load("data.js")
    .then(async () => {
      data = window.lvlmExplorer;
      build();
      const stops = data.colours.filter((_, n) => n % 15 === 0);
      const stop = ([red, green, blue]) => `rgb(${red}, ${green}, ${blue})`;
      const ramp = `linear-gradient(to right, ${stops.map(stop).join(", ")})`;
      for (const own of Object.values(side)) own.bar.style.background = ramp;
      fill(parts.world, Object.keys(data.worlds), Object.values(data.worlds));
      fill(parts.category, ["all", ...unique(data.items.map((item) => item.category))]);
      fill(parts.verdict, ["all", "correct", "wrong"], ["right or wrong", "right", "wrong"]);
      fill(parts.agree, Object.keys(AGREE), Object.values(AGREE));
      // A link from a chapter asks behind "?": behind "#" it would have to name a place on the page.
      const asked = Object.fromEntries(new URLSearchParams(location.hash.slice(1) || location.search));
      await start({ ...data.examples[0], ...asked });
      ready = true;
      place.dataset.ready = "yes";
      await load(WORDS);
    })
    .catch((error) => {
      place.append(make("p", { role: "alert" }, `The explorer's data could not be loaded (${error.message}).`));
      console.error(error);
    });
})();
