// The page: a pad, samples, and what two networks say about the image.

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

const darkMode = matchMedia("(prefers-color-scheme: dark)");
const inkColor = () => (darkMode.matches ? [240, 240, 245] : [20, 24, 32]);

const drawing = new Pad($("pad"), update);
const current = () => drawing.current;

let isWaiting = false;
let spoken; // the timer of what a screen reader is told

/** Show everything anew, once per frame. */
function update() {
  if (isWaiting) return;
  isWaiting = true;
  requestAnimationFrame(() => {
    isWaiting = false;
    const pixels = imageOf(current());
    drawing.draw(inkColor());
    $("hint").hidden = !drawing.isEmpty;
    paint($("seen"), pixels, WHITE);
    const said = { softmax: readSoftmax(pixels), recipe: readRecipe(pixels) };
    for (const id of Object.keys(said)) show(id, said[id]);
    $("undo").disabled = drawing.entries.length < 2;
    $("clear").disabled = drawing.isEmpty;
    clearTimeout(spoken);
    spoken = setTimeout(() => {
      $("spoken").textContent = `Softmax: ${said.softmax.verdict}. The recipe: ${said.recipe.verdict}.`;
    }, 700);
  });
}

$("undo").addEventListener("click", () => drawing.undo());
document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && !event.shiftKey && event.key === "z") {
    event.preventDefault();
    drawing.undo();
  }
});
$("clear").addEventListener("click", () => drawing.clear());

document.querySelectorAll("#samples button").forEach((button, i) => {
  paint(button.querySelector("canvas"), samples[i], WHITE);
  button.addEventListener("click", () => drawing.push({ image: samples[i], strokes: [] }));
});

$("morph").max = morph.length - 1;
$("morph").addEventListener("input", () => {
  const step = Number($("morph").value);
  // One entry for as long as the slider moves.
  if (current().isMorph && current().strokes.length === 0) drawing.entries.pop();
  $("morph").setAttribute("aria-valuetext", `step ${step} of ${morph.length - 1}`);
  drawing.push({ image: morph[step], strokes: [], isMorph: true });
});

for (const id of ["softmax", "recipe"]) makeBars($(id).querySelector("ol"));
darkMode.addEventListener("change", update);
addEventListener("resize", update);
update();
