// A pad to draw on, and the image that a network sees of the drawing.
// The page nbs/draw.html and the widget in JupyterLab both use it.

const SIZE = 28; // pixels, of the image that a network sees
const FINE = 8; // drawn so much larger, then averaged
const PEN = 2.5; // pixels, about as wide as the strokes of the training digits
const BOX = { height: 20, width: 22 }; // that a drawing is fitted into, in pixels
const MOST = 3; // times that a small drawing is enlarged

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
function inkOf(strokes) {
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

/** Return the image that a network sees of a drawing: its pixels from 0 to 255, row by row. */
function imageOf({ image, strokes }) {
  if (strokes.length === 0) return image ?? new Uint8Array(SIZE ** 2);
  if (image === null) return inkOf(fit(strokes));
  const inPixels = strokes.map((stroke) => stroke.map((p) => ({ x: p.x * SIZE, y: p.y * SIZE })));
  return inkOf(inPixels).map((pixel, i) => Math.max(pixel, image[i]));
}

/** Put an image on a canvas of its size, in one color, the pixels' brightness as opacity. */
function paint(canvas, pixels, [red, green, blue]) {
  const picture = new ImageData(SIZE, SIZE);
  pixels.forEach((pixel, i) => picture.data.set([red, green, blue, pixel], 4 * i));
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

const WHITE = [255, 255, 255];

/** A canvas to draw on with a mouse, a pen or a finger. It calls `changed` after each change. */
class Pad {
  constructor(canvas, changed) {
    this.canvas = canvas;
    this.changed = changed;
    // Each entry is all there is at one time: an image, or null, and strokes over it. A stroke is
    // a list of points from 0 to 1. Undo takes the last entry away.
    this.entries = [{ image: null, strokes: [] }];
    this.pointer = null; // the one that is down: one of them draws at a time
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) {
      canvas.addEventListener(name, (event) => this.lift(event));
    }
  }

  get current() {
    return this.entries[this.entries.length - 1];
  }

  get isEmpty() {
    return this.current.image === null && this.current.strokes.length === 0;
  }

  /** Go on from a new state; undo leads back. */
  push(entry) {
    this.entries.push(entry);
    this.changed();
  }

  clear() {
    this.push({ image: null, strokes: [] });
  }

  /** Take the last stroke, image or clearing back. */
  undo() {
    if (this.entries.length > 1 && this.pointer === null) this.entries.pop();
    this.changed();
  }

  /** Return where an event is on the canvas, from 0 to 1. */
  pointOf(event) {
    const box = this.canvas.getBoundingClientRect();
    return { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
  }

  press(event) {
    if (this.pointer !== null || event.button !== 0) return;
    this.pointer = event.pointerId;
    this.canvas.setPointerCapture(this.pointer);
    event.preventDefault();
    const { image, strokes } = this.current;
    this.push({ image, strokes: [...strokes, [this.pointOf(event)]] });
  }

  move(event) {
    if (event.pointerId !== this.pointer) return;
    const stroke = this.current.strokes.at(-1);
    // A browser hands over one event per frame, which holds those in between.
    const events = event.getCoalescedEvents?.() ?? [];
    stroke.push(...(events.length ? events : [event]).map((one) => this.pointOf(one)));
    this.changed();
  }

  lift(event) {
    if (event.pointerId === this.pointer) this.pointer = null;
  }

  /** Draw the image that lies below, and the strokes, in one color. */
  draw(color) {
    const { canvas } = this;
    const context = canvas.getContext("2d");
    const side = Math.round(canvas.clientWidth * devicePixelRatio);
    if (canvas.width !== side) canvas.width = canvas.height = side;
    context.clearRect(0, 0, side, side);
    const { image, strokes } = this.current;
    if (image) {
      const small = Object.assign(document.createElement("canvas"), { width: SIZE, height: SIZE });
      paint(small, image, color);
      context.imageSmoothingEnabled = false;
      context.drawImage(small, 0, 0, side, side);
    }
    context.strokeStyle = `rgb(${color})`;
    trace(context, strokes, side, (PEN / SIZE) * side);
  }
}
