// The explorer page: pick a model, a method and an item; see answer, map and scores.
// Plain JavaScript. Data are scripts under data-root (tools/explorer.py), so that the page also
// works when it is opened from a disc, where a page may not fetch files.
"use strict";

(() => {
  const place = document.getElementById("look");
  if (!place) return;
  const root = place.dataset.root;
  const STATUS = {
    ok: "",
    no_crucial_tokens: "No word of this answer is crucial, so there is nothing to explain.",
    no_gap: "Picture and blur give nearly the same probability: the map cannot be scored.",
    diverged: "The search for a map did not converge.",
    constant: "The map has the same value everywhere: it says nothing and cannot be scored.",
    empty_answer: "The model answered nothing.",
    error: "The computation failed on this item.",
  };
  let data;

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
    new Promise((done, failed) => {
      const script = make("script", { src: root + file });
      script.onload = done;
      script.onerror = () => failed(new Error(`${file} is missing`));
      document.head.append(script);
    });

  const unique = (values) => [...new Set(values)];
  const shown = (value, digits = 2) =>
    value === null || value === undefined ? "–" : value.toFixed(digits).replace("-", "−");

  // --- the parts of the page ("dark-light": the theme shall not lay pictures on white)

  const parts = {};

  function labelled(name, text, element, wide = false) {
    parts[name] = element;
    element.id = `explorer-${name}`;
    const label = make("label", { for: element.id }, text);
    return make("div", wide ? { class: "wide" } : {}, label, element);
  }

  function build() {
    const step = (name, sign, by) => {
      const button = make("button", { type: "button", "aria-label": name }, sign);
      button.onclick = () => move(by);
      return button;
    };
    const item = labelled("item", "Question", make("select"), true);
    const pick = make("div", { class: "pick" }, parts.item);
    pick.append(step("previous question", "‹", -1), step("next question", "›", 1));
    item.append(pick);
    const controls = make("div", { class: "explorer-controls" });
    controls.append(
      labelled("model", "Model", make("select")),
      labelled("method", "Method", make("select")),
      labelled("category", "Kind of question", make("select")),
      item,
    );
    place.append(controls, view(), make("p", { class: "quiet", role: "status", id: "explorer-said" }));
    for (const name of ["model", "method", "item"]) parts[name].onchange = show;
    parts.category.onchange = () => (fillItems(), show());
    parts.opacity.oninput = paint;
    parts.outline.onchange = paint;
  }

  function view() {
    parts.picture = make("img", { class: "dark-light", alt: "" });
    parts.map = make("canvas", { "aria-hidden": "true" });
    parts.evidence = make("img", { class: "dark-light", alt: "", hidden: true });
    parts.stage = make("div", { class: "explorer-stage" });
    parts.stage.append(parts.picture, parts.map, parts.evidence);
    parts.bar = make("div", { class: "explorer-bar", "aria-hidden": "true" });
    parts.end = make("span");
    parts.opacity = make("input", { type: "range", min: "0", max: "100", value: "100" });
    parts.outline = make("input", { type: "checkbox" });
    const sliders = make("div", { class: "explorer-sliders" });
    sliders.append(
      make("label", {}, "Map", parts.opacity),
      make("label", {}, parts.outline, "Outline what decides the answer"),
    );
    const ends = make("div", { class: "explorer-ends" }, make("span", {}, "0"), parts.end);
    parts.words = make("div", { class: "explorer-words" });
    const left = make("div", {}, parts.stage, parts.bar, ends, sliders);
    return make("div", { class: "explorer-view" }, left, parts.words);
  }

  function fill(select, values, texts = values) {
    const before = select.value;
    select.replaceChildren(...values.map((v, n) => make("option", { value: String(v) }, texts[n])));
    if (values.map(String).includes(before)) select.value = before;
  }

  function fillItems() {
    const wanted = parts.category.value;
    const kept = data.items
      .map((item, n) => ({ item, n }))
      .filter(({ item }) => wanted === "all" || item.category === wanted);
    fill(
      parts.item,
      kept.map(({ n }) => n),
      kept.map(({ item }) => `${item.question} (${item.id})`),
    );
  }

  function move(by) {
    const count = parts.item.options.length;
    parts.item.selectedIndex = (parts.item.selectedIndex + by + count) % count;
    show();
  }

  // --- what is picked

  const entry = (model, method) =>
    data.maps.find((one) => one.model === model && one.method === method);

  async function show() {
    const methods = data.maps.filter((m) => m.model === parts.model.value).map((m) => m.method);
    fill(parts.method, methods);
    const picked = { model: parts.model.value, method: parts.method.value, item: parts.item.value };
    const item = data.items[picked.item];
    const found = entry(picked.model, picked.method);
    if (found.file && !data.loaded[found.file]) await load(found.file);
    if (parts.item.value !== picked.item || parts.method.value !== picked.method) return;
    parts.picture.width = item.size[0];
    parts.picture.height = item.size[1];
    parts.picture.src = `${root}pictures/${picked.item}.webp`;
    parts.picture.alt = item.alt;
    parts.evidence.src = item.area === null ? "" : `${root}evidence/${picked.item}.png`;
    if (item.area === null) parts.evidence.removeAttribute("src");
    parts.outline.disabled = item.area === null;
    draw(found.file ? data.loaded[found.file][picked.item] : undefined, picked.method);
    tell(item, data.answers[picked.model][picked.item], found.scores[picked.item], picked);
    const words = Object.entries({ ...picked, item: item.id });
    const hash = words.map((pair) => pair.map(encodeURIComponent).join("=")).join("&");
    if (ready) location.replace(`#${hash}`);
  }

  function draw(map, method) {
    parts.map.hidden = !map;
    parts.bar.parentElement.querySelector(".explorer-ends").hidden = parts.bar.hidden = !map;
    if (map) {
      const [height, width] = map.shape;
      const cells = Uint8Array.from(atob(map.cells), (letter) => letter.charCodeAt(0));
      const pixels = new ImageData(width, height);
      cells.forEach((value, n) => pixels.data.set(data.colours[value], 4 * n));
      Object.assign(parts.map, { width, height });
      parts.map.getContext("2d").putImageData(pixels, 0, 0);
      parts.end.textContent = `${Number(data.scales[method].toPrecision(2))} (all maps of ${method})`;
    }
    paint();
  }

  function paint() {
    parts.map.style.opacity = parts.opacity.value / 100;
    parts.opacity.setAttribute("aria-valuetext", `${parts.opacity.value} percent`);
    parts.evidence.hidden = !(parts.outline.checked && parts.evidence.hasAttribute("src"));
  }

  // --- words and numbers

  function token([text, ratio, crucial], top) {
    const word = text.trimStart();
    const strength = Math.max(0, Math.min(1, (ratio ?? 0) / top));
    const [red, green, blue] = data.colours[Math.round(255 * strength)];
    const mark = make("span", {
      class: crucial ? "token crucial" : "token",
      title: `log-likelihood ratio ${shown(ratio)}${crucial ? ", crucial" : ""}`,
      style: `background: rgba(${red}, ${green}, ${blue}, ${(0.3 * strength).toFixed(2)})`,
    });
    mark.append(word);
    return [text.slice(0, text.length - word.length), mark];
  }

  function tell(item, answer, score, picked) {
    const lines = [make("p", {}, make("strong", {}, item.question))];
    if (!answer) lines.push(make("p", {}, "This model has not been asked this question."));
    const facts = [["Expected", item.reference], ["Kind of question", item.category]];
    if (answer) {
      const top = Math.max(...answer.tokens.map(([, ratio]) => ratio ?? 0), 1e-9);
      const tokens = make("p", { class: "tokens" });
      answer.tokens.forEach((each) => tokens.append(...token(each, top)));
      const crucial = answer.tokens.filter(([, , mark]) => mark).map(([text]) => text.trim());
      lines.push(tokens);
      if (answer.truncated) lines.push(make("p", {}, "The answer was cut here: the limit on new tokens ended it."));
      facts.push(
        ["Verdict", answer.verdict],
        ["Crucial", crucial.join(", ") || "none"],
        ["Lost without the picture", answer.drop === null ? "–" : `${shown(100 * answer.drop, 0)} %`],
      );
    }
    if (score) {
      if (STATUS[score.status]) lines.push(make("p", {}, STATUS[score.status]));
      facts.push(
        ["Insertion", shown(score.insertion)],
        ["Deletion", shown(score.deletion)],
        ["Insertion − deletion", shown(score.gap)],
      );
      if (score.on_evidence !== undefined && score.on_evidence !== null) {
        const times = item.area ? `, ${shown(score.on_evidence / item.area, 1)} times its area` : "";
        facts.push(["On the evidence", `${shown(100 * score.on_evidence, 0)} %${times}`]);
      }
    } else lines.push(make("p", {}, "This method was not run on this question."));
    const list = make("dl");
    facts.forEach(([name, value]) => list.append(make("dt", {}, name), make("dd", {}, value)));
    parts.words.replaceChildren(...lines, list);
    const said = answer ? `${answer.text} ${answer.verdict}.` : "";
    const gap = score ? `Insertion minus deletion ${shown(score.gap)}.` : "";
    document.getElementById("explorer-said").textContent =
      `${picked.model}, ${picked.method}: ${item.question} ${said} ${gap}`;
  }

  // --- start

  let ready = false;

  function restore() {
    // A link from a chapter asks behind "?": behind "#" it would have to name a place on the page.
    const asked = new URLSearchParams(location.hash.slice(1) || location.search);
    const item = data.items.findIndex((one) => one.id === asked.get("item"));
    const model = asked.get("model"), method = asked.get("method");
    if (data.answers[model]) parts.model.value = model;
    fill(parts.method, data.maps.filter((m) => m.model === parts.model.value).map((m) => m.method));
    const some = data.maps.find((m) => m.model === parts.model.value && m.file);
    parts.method.value = entry(parts.model.value, method) ? method : (some ?? data.maps[0]).method;
    const scores = entry(parts.model.value, parts.method.value).scores;
    const first = data.items.findIndex((_, n) => scores[n]?.status === "ok");
    parts.item.value = String(item >= 0 ? item : Math.max(first, 0));
  }

  load("data.js")
    .then(async () => {
      data = window.lvlmExplorer;
      build();
      const stops = data.colours.filter((_, n) => n % 15 === 0);
      const stop = ([red, green, blue]) => `rgb(${red}, ${green}, ${blue})`;
      parts.bar.style.background = `linear-gradient(to right, ${stops.map(stop).join(", ")})`;
      fill(parts.model, Object.keys(data.answers));
      fill(parts.category, ["all", ...unique(data.items.map((item) => item.category))]);
      fillItems();
      restore();
      await show();
      ready = true;
      place.dataset.ready = "yes";
    })
    .catch((error) => {
      place.append(make("p", { role: "alert" }, `The explorer's data could not be loaded (${error.message}).`));
      console.error(error);
    });
})();
