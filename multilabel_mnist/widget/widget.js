// The widget in JupyterLab: a pad, and what the kernel says about the drawing.
// pad.js goes before this file. Python's side is multilabel_mnist/pad.py.

const SETTLED = 500; // milliseconds without a change, before the picture in the notebook is made
const PARTS = `
  <div class="mm-drawing">
    <div class="mm-paper">
      <canvas class="mm-canvas" tabindex="0" role="img" aria-label="Pad to draw on with a mouse, a pen or a finger"></canvas>
      <p class="mm-hint">Draw here</p>
    </div>
    <div class="mm-buttons">
      <button type="button" class="mm-undo">Undo</button>
      <button type="button" class="mm-clear">Clear</button>
    </div>
    <figure>
      <canvas class="mm-seen" width="28" height="28" role="img" aria-label="The image of 28 by 28 pixels that the model sees"></canvas>
      <figcaption>What the model sees:<br>28×28 pixels</figcaption>
    </figure>
  </div>
  <div class="mm-answer">
    <p class="mm-verdict"></p>
    <ol class="mm-bars" aria-label="Probabilities, in percent"></ol>
    <p class="mm-entropy"></p>
    <label class="mm-slider"><span>Threshold</span><input type="range" class="mm-threshold" min="0" max="1" step="0.01"><output></output></label>
    <label class="mm-slider"><span>Constant added to all logits</span><input type="range" class="mm-constant" min="-10" max="10" step="0.1"><output></output></label>
    <button type="button" class="mm-reset">Reset the sliders</button>
    <p class="mm-legend">Bars: the probability of each class, in percent. Dashed line: the threshold, above which a class fires.<span class="mm-of-softmax"> Circles: the softmax of the same logits, which a constant leaves as it is.</span></p>
  </div>
  <p class="mm-spoken" role="status"></p>`;

/** Return a drawing as the kernel has it: pixels or null, and points as pairs of numbers. */
function packed({ image, strokes }) {
  const pair = ({ x, y }) => [x, y].map((value) => Math.round(1e4 * value) / 1e4);
  return { image: image && Array.from(image), strokes: strokes.map((stroke) => stroke.map(pair)) };
}

/** Return a drawing from what the kernel has. */
function unpacked({ image, strokes }) {
  return { image, strokes: strokes.map((stroke) => stroke.map(([x, y]) => ({ x, y }))) };
}

/** Return the bar of a class, empty. */
function makeBar(name) {
  const item = document.createElement("li");
  item.innerHTML = `<span class="mm-class"></span><span class="mm-hidden">: </span><span class="mm-value"></span><span class="mm-track"><span class="mm-bar"></span><span class="mm-line"></span><span class="mm-softmax"></span></span>`;
  item.querySelector(".mm-class").textContent = item.title = name;
  return item;
}

/** Show what the kernel says. */
function showAnswer(find, { verdict, entropy, probs, fires, softmax }, thresholds) {
  find(".mm-verdict").textContent = verdict;
  find(".mm-entropy").textContent = entropy;
  find(".mm-bars").querySelectorAll("li").forEach((item, c) => {
    const part = (name) => item.querySelector(name);
    const hasProb = probs.length > 0;
    item.classList.toggle("mm-fires", hasProb && fires[c]);
    part(".mm-value").textContent = hasProb ? Math.round(100 * probs[c]) : "";
    part(".mm-bar").style.height = `${hasProb ? 100 * probs[c] : 0}%`;
    part(".mm-line").style.bottom = `${100 * thresholds[c]}%`;
    part(".mm-softmax").hidden = softmax.length === 0;
    part(".mm-softmax").style.bottom = `${100 * (softmax[c] ?? 0)}%`;
  });
  find(".mm-of-softmax").hidden = softmax.length === 0;
}

/** Show where the sliders are; thresholds that differ are no place for one slider. */
function showSliders(find, thresholds, constant) {
  const places = {
    ".mm-threshold": [thresholds[0], thresholds[0].toFixed(2)],
    ".mm-constant": [constant, constant.toFixed(1)],
  };
  if (new Set(thresholds).size > 1) places[".mm-threshold"] = [0.5, "per class"];
  for (const [name, [value, text]] of Object.entries(places)) {
    const slider = find(name);
    slider.value = value;
    slider.setAttribute("aria-valuetext", text);
    slider.nextElementSibling.textContent = text;
  }
}

/** Build a view of a model, an object that shares its values with the kernel. */
function view({ model, el }) {
  const root = document.createElement("div");
  root.className = "mm-pad";
  root.innerHTML = PARTS;
  const find = (name) => root.querySelector(name);
  find(".mm-bars").append(...model.get("_names").map(makeBar));
  find(".mm-bars").style.setProperty("--mm-classes", model.get("_names").length);
  const pad = new Pad(find(".mm-canvas"), changed);
  let sent = JSON.stringify(model.get("_drawing")); // by this view, or what it began with
  pad.entries.push(unpacked(model.get("_drawing")));
  if (pad.isEmpty) pad.entries.pop();
  const timers = {};

  /** Call something once, after some milliseconds without another such call. */
  function later(name, wait, call) {
    clearTimeout(timers[name]);
    timers[name] = setTimeout(call, wait);
  }

  /** Let the kernel make the picture that stays in the notebook. */
  function settle() {
    later("settle", SETTLED, () => model.send({ kind: "settled" }));
  }

  function drawPad() {
    pad.draw(WHITE);
    paint(find(".mm-seen"), imageOf(pad.current), WHITE);
    find(".mm-hint").hidden = !pad.isEmpty;
    find(".mm-undo").disabled = pad.entries.length < 2;
    find(".mm-clear").disabled = pad.isEmpty;
  }

  let isWaiting = false;

  /** Draw anew and tell the kernel, once per frame. */
  function changed() {
    if (isWaiting) return;
    isWaiting = true;
    requestAnimationFrame(() => {
      isWaiting = false;
      drawPad();
      const drawing = packed(pad.current);
      sent = JSON.stringify(drawing);
      model.set({ _drawing: drawing, _pixels: Array.from(imageOf(pad.current)) });
      model.save_changes();
      settle();
    });
  }

  /** Take over a drawing that comes from the kernel or from another view. */
  function take() {
    const drawing = model.get("_drawing");
    if (JSON.stringify(drawing) === sent) return;
    sent = JSON.stringify(drawing);
    pad.entries.push(unpacked(drawing));
    drawPad();
  }

  function show() {
    const thresholds = model.get("_thresholds");
    showAnswer(find, model.get("_answer"), thresholds);
    showSliders(find, thresholds, model.get("constant"));
    const { verdict } = model.get("_answer");
    later("speak", 700, () => (find(".mm-spoken").textContent = verdict));
  }

  /** Tell the kernel where the sliders are. */
  function setSliders(thresholds, constant) {
    model.set({ _thresholds: thresholds, constant });
    model.save_changes();
    settle();
  }

  /** Keep keys from JupyterLab's shortcuts, where arrows move from cell to cell, but not Ctrl+S. */
  function guard({ target, ctrlKey, metaKey }) {
    if (!root.contains(target)) return;
    target.toggleAttribute("data-lm-suppress-shortcuts", !ctrlKey && !metaKey);
  }

  window.addEventListener("keydown", guard, true); // JupyterLab listens to the document
  find(".mm-undo").addEventListener("click", () => pad.undo());
  find(".mm-clear").addEventListener("click", () => pad.clear());
  root.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && !event.shiftKey && event.key === "z") {
      event.preventDefault();
      event.stopPropagation();
      pad.undo();
    }
  });
  find(".mm-threshold").addEventListener("input", (event) => {
    const thresholds = model.get("_thresholds").map(() => event.target.valueAsNumber);
    setSliders(thresholds, model.get("constant"));
  });
  find(".mm-constant").addEventListener("input", (event) => {
    setSliders(model.get("_thresholds"), event.target.valueAsNumber);
  });
  find(".mm-reset").addEventListener("click", () => setSliders(model.get("_own_thresholds"), 0));

  const listeners = { _answer: show, _thresholds: show, constant: show, _drawing: take };
  for (const [name, call] of Object.entries(listeners)) model.on(`change:${name}`, call);
  const resized = new ResizeObserver(drawPad);
  resized.observe(find(".mm-canvas"));
  el.append(root);
  show();

  return () => {
    for (const [name, call] of Object.entries(listeners)) model.off(`change:${name}`, call);
    window.removeEventListener("keydown", guard, true);
    resized.disconnect();
    Object.values(timers).forEach(clearTimeout);
  };
}

export default { render: view };
