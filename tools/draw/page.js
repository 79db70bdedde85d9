// The page: a pad, samples, and what two networks say about the image.

const SIZE = 28; // pixels, of the image that the networks see
const FINE = 8; // drawn so much larger, then averaged
const PEN = 2.5; // pixels, about as wide as the strokes of the training digits
const BOX = { height: 20, width: 22 }; // that a drawing is fitted into, in pixels
const MOST = 3; // times that a small drawing is enlarged
const THRESHOLD = 0.5;

const $ = (id) => document.getElementById(id);

/** Return the bytes that a script element of the page holds as base64. */
function bytesIn(id) {
  return Uint8Array.from(atob($(id).textContent.trim()), (c) => c.charCodeAt(0));
}

/** Return images from bytes that hold one after the other. */
function imagesIn(id) {
  const bytes = bytesIn(id);
  const n = bytes.length / SIZE ** 2;
  return Array.from({ length: n }, (_, i) => bytes.subarray(i * SIZE ** 2, (i + 1) * SIZE ** 2));
}

const networks = { softmax: readNetwork(bytesIn("softmax-weights")), recipe: readNetwork(bytesIn("recipe-weights")) };
const samples = imagesIn("samples-data");
const morph = imagesIn("morph-data");

// What was drawn. Each entry is all there is at one time: an image, or null, and strokes over it.
// A stroke is a list of points from 0 to 1. Undo takes the last entry away.

let entries = [{ image: null, strokes: [] }];
const current = () => entries[entries.length - 1];

// From strokes to the image

/** Return the smallest box around points. */
function boxAround(points) {
  const xs = points.map((p) => p.x);
  const ys = points.map((p) => p.y);
  const [left, right] = [Math.min(...xs), Math.max(...xs)];
  const [top, bottom] = [Math.min(...ys), Math.max(...ys)];
  return { left, right, top, bottom, width: right - left, height: bottom - top };
}

/** Return the center of mass of lines of even width. */
function centerOfMass(strokes) {
  let [mass, x, y] = [0, 0, 0];
  for (const stroke of strokes) {
    stroke.forEach((p, i) => {
      const before = stroke[Math.max(0, i - 1)];
      const length = Math.hypot(p.x - before.x, p.y - before.y) + 1e-6;
      mass += length;
      x += (length * (p.x + before.x)) / 2;
      y += (length * (p.y + before.y)) / 2;
    });
  }
  return { x: x / mass, y: y / mass };
}

/** Keep a box of a size from `low` on inside the image: return where its start may be. */
function inside(start, length) {
  const margin = PEN / 2;
  const last = SIZE - margin - length;
  return Math.min(Math.max(start, margin), Math.max(last, margin));
}

/** Return the point of a drawing that goes to the middle, as in the training images. */
function centerOf(strokes, box) {
  // The training digits have their center of mass there, and pairs of them have their box.
  const isWide = box.width > box.height;
  const middle = { x: (box.left + box.right) / 2, y: (box.top + box.bottom) / 2 };
  return isWide ? middle : centerOfMass(strokes);
}

/** Scale and shift strokes as the training images were. */
function fit(strokes) {
  const box = boxAround(strokes.flat());
  const ink = { height: BOX.height - PEN, width: BOX.width - PEN };
  const scale = Math.min(ink.height / box.height, ink.width / box.width, MOST * SIZE);
  const center = centerOf(strokes, box);
  const left = inside(SIZE / 2 - (center.x - box.left) * scale, box.width * scale);
  const top = inside(SIZE / 2 - (center.y - box.top) * scale, box.height * scale);
  const move = (p) => ({ x: (p.x - box.left) * scale + left, y: (p.y - box.top) * scale + top });
  return strokes.map((stroke) => stroke.map(move));
}

/** Trace strokes on a canvas. */
function trace(context, strokes, scale, width) {
  context.lineWidth = width;
  context.lineCap = context.lineJoin = "round";
  for (const stroke of strokes) {
    context.beginPath();
    context.moveTo(stroke[0].x * scale, stroke[0].y * scale);
    for (const p of stroke) context.lineTo(p.x * scale, p.y * scale);
    context.stroke();
  }
}

const fine = Object.assign(document.createElement("canvas"), { width: SIZE * FINE, height: SIZE * FINE });
const fineContext = fine.getContext("2d", { willReadFrequently: true });

/** Return the pixels of strokes whose points are in pixels: the share of each that is ink. */
function render(strokes) {
  fineContext.clearRect(0, 0, fine.width, fine.height);
  trace(fineContext, strokes, FINE, PEN * FINE);
  const { data } = fineContext.getImageData(0, 0, fine.width, fine.height);
  const sums = new Float32Array(SIZE ** 2);
  for (let i = 0; i < fine.width * fine.height; i++) {
    const row = Math.floor(i / fine.width / FINE);
    const column = Math.floor((i % fine.width) / FINE);
    sums[row * SIZE + column] += data[4 * i + 3];
  }
  return Uint8Array.from(sums, (sum) => Math.round(sum / FINE ** 2));
}

/** Return the image that the networks see. */
function imageOf({ image, strokes }) {
  if (strokes.length === 0) return image ?? new Uint8Array(SIZE ** 2);
  if (image === null) return render(fit(strokes));
  const inPixels = strokes.map((stroke) => stroke.map((p) => ({ x: p.x * SIZE, y: p.y * SIZE })));
  return render(inPixels).map((pixel, i) => Math.max(pixel, image[i]));
}

// What the networks say

/** Return names in words: "0", "0 and 1", "0, 1 and 7". */
function listed(names) {
  const last = names[names.length - 1];
  return names.length < 2 ? `${last}` : `${names.slice(0, -1).join(", ")} and ${last}`;
}

/** Say what the softmax network names: the digit with the largest probability, in any case. */
function readSoftmax(pixels) {
  const probs = softmax(logitsOf(networks.softmax, pixels));
  const named = [probs.indexOf(Math.max(...probs))];
  return { probs, named, verdict: `One: ${listed(named)}`, entropy: entropyOfOne(probs) };
}

/** Say which classes of the recipe's network fire. */
function readRecipe(pixels) {
  const probs = sigmoids(logitsOf(networks.recipe, pixels));
  const named = probs.map((p, digit) => digit).filter((digit) => probs[digit] > THRESHOLD);
  const count = ["None", "One"][named.length] ?? "Several";
  const verdict = named.length === 0 ? count : `${count}: ${listed(named)}`;
  return { probs, named, verdict, entropy: entropyOfEach(probs) };
}

/** Make the ten bars of a network, empty. */
function makeBars(list) {
  for (let digit = 0; digit < 10; digit++) {
    const item = document.createElement("li");
    item.innerHTML = `<span class="digit">${digit}</span><span class="colon">: </span><span class="value"></span><span class="track"><span class="bar"></span></span>`;
    list.append(item);
  }
}

/** Show what a network says in its part of the page. */
function show(id, { probs, named, verdict, entropy }) {
  const part = $(id);
  part.querySelector(".verdict").textContent = verdict;
  part.querySelector(".entropy").textContent = `${entropy.toFixed(2)} bits`;
  part.querySelectorAll("li").forEach((item, digit) => {
    item.classList.toggle("named", named.includes(digit));
    item.querySelector(".value").textContent = Math.round(100 * probs[digit]);
    item.querySelector(".bar").style.height = `${100 * probs[digit]}%`;
  });
}

/** Put an image on a canvas of its size, in one color, the pixels' brightness as opacity. */
function paint(canvas, pixels, [red, green, blue]) {
  const picture = new ImageData(SIZE, SIZE);
  pixels.forEach((pixel, i) => picture.data.set([red, green, blue, pixel], 4 * i));
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

const WHITE = [255, 255, 255];
const darkMode = matchMedia("(prefers-color-scheme: dark)");
const inkColor = () => (darkMode.matches ? [240, 240, 245] : [20, 24, 32]);

/** Draw the pad: the image that lies below, and the strokes. */
function drawPad() {
  const pad = $("pad");
  const context = pad.getContext("2d");
  const side = Math.round(pad.clientWidth * devicePixelRatio);
  if (pad.width !== side) pad.width = pad.height = side;
  context.clearRect(0, 0, side, side);
  const { image, strokes } = current();
  const color = inkColor();
  if (image) {
    const small = Object.assign(document.createElement("canvas"), { width: SIZE, height: SIZE });
    paint(small, image, color);
    context.imageSmoothingEnabled = false;
    context.drawImage(small, 0, 0, side, side);
  }
  context.strokeStyle = `rgb(${color})`;
  trace(context, strokes, side, (PEN / SIZE) * side);
  $("hint").hidden = image !== null || strokes.length > 0;
}

let isWaiting = false;
let spoken; // the timer of what a screen reader is told

/** Show everything anew, once per frame. */
function update() {
  if (isWaiting) return;
  isWaiting = true;
  requestAnimationFrame(() => {
    isWaiting = false;
    const pixels = imageOf(current());
    drawPad();
    paint($("seen"), pixels, WHITE);
    const said = { softmax: readSoftmax(pixels), recipe: readRecipe(pixels) };
    for (const id of Object.keys(said)) show(id, said[id]);
    $("undo").disabled = entries.length < 2;
    $("clear").disabled = !current().image && current().strokes.length === 0;
    clearTimeout(spoken);
    spoken = setTimeout(() => {
      $("spoken").textContent = `Softmax: ${said.softmax.verdict}. The recipe: ${said.recipe.verdict}.`;
    }, 700);
  });
}

/** Go on from a new state; undo leads back. */
function push(entry) {
  entries.push(entry);
  update();
}

// Pointers: mouse, pen and touch. One of them draws at a time.

let drawing = null; // the pointer that is down

/** Return where an event is on the pad, from 0 to 1. */
function pointOf(event) {
  const box = $("pad").getBoundingClientRect();
  return { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
}

$("pad").addEventListener("pointerdown", (event) => {
  if (drawing !== null || event.button !== 0) return;
  drawing = event.pointerId;
  $("pad").setPointerCapture(drawing);
  event.preventDefault();
  const { image, strokes } = current();
  push({ image, strokes: [...strokes, [pointOf(event)]] });
});

$("pad").addEventListener("pointermove", (event) => {
  if (event.pointerId !== drawing) return;
  const stroke = current().strokes.at(-1);
  // A browser hands over one event per frame, which holds those in between.
  const events = event.getCoalescedEvents?.() ?? [];
  stroke.push(...(events.length ? events : [event]).map(pointOf));
  update();
});

for (const name of ["pointerup", "pointercancel"]) {
  $("pad").addEventListener(name, (event) => {
    if (event.pointerId === drawing) drawing = null;
  });
}

/** Take the last stroke, sample or clearing back. */
function undo() {
  if (entries.length > 1 && drawing === null) entries.pop();
  update();
}

$("undo").addEventListener("click", undo);
document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && !event.shiftKey && event.key === "z") {
    event.preventDefault();
    undo();
  }
});
$("clear").addEventListener("click", () => push({ image: null, strokes: [] }));

document.querySelectorAll("#samples button").forEach((button, i) => {
  paint(button.querySelector("canvas"), samples[i], WHITE);
  button.addEventListener("click", () => push({ image: samples[i], strokes: [] }));
});

$("morph").max = morph.length - 1;
$("morph").addEventListener("input", () => {
  const step = Number($("morph").value);
  // One entry for as long as the slider moves.
  if (current().isMorph && current().strokes.length === 0) entries.pop();
  $("morph").setAttribute("aria-valuetext", `step ${step} of ${morph.length - 1}`);
  push({ image: morph[step], strokes: [], isMorph: true });
});

for (const id of ["softmax", "recipe"]) makeBars($(id).querySelector("ol"));
darkMode.addEventListener("change", update);
addEventListener("resize", update);
update();
