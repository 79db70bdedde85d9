// A network of the package, from the bytes of its file: pixels in, logits out.
// nbs/reference/shipped.ipynb describes the format and writes such files.

const arrays = { I8: Int8Array, F32: Float32Array };

/** Return {name: {shape, values}} and the text of a file in the format of safetensors. */
function readTensors(bytes) {
  const start = 8 + Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, start)));
  const text = header.__metadata__;
  delete header.__metadata__;
  const tensors = {};
  for (const [name, { dtype, shape, data_offsets: [from, to] }] of Object.entries(header)) {
    // The slice is a copy, which begins where an array of floats may begin.
    tensors[name] = { shape, values: new arrays[dtype](bytes.slice(start + from, start + to).buffer) };
  }
  return { tensors, text };
}

/** Return the weights of a layer: each output channel has one scale. */
function restoreWeights(tensors, number) {
  const { shape, values } = tensors[`${number}.weight`];
  const scale = tensors[`${number}.scale`].values;
  const perOutput = values.length / shape[0];
  const weight = Float32Array.from(values, (w, i) => w * scale[Math.floor(i / perOutput)]);
  return { shape, weight, bias: tensors[`${number}.bias`].values };
}

/** Return a layer with its weights, if it has any, and those of the layers inside it. */
function prepareLayer(layer, tensors) {
  if (layer.kind === "residual") {
    return { ...layer, layers: layer.layers.map((inside) => prepareLayer(inside, tensors)) };
  }
  return "number" in layer ? { ...layer, ...restoreWeights(tensors, layer.number) } : layer;
}

/** Return a network from the bytes (Uint8Array) of its file. */
function readNetwork(bytes) {
  const { tensors, text } = readTensors(bytes);
  const { vocab, layers } = JSON.parse(text.network);
  return { vocab, layers: layers.map((layer) => prepareLayer(layer, tensors)) };
}

// What passes between layers: {channels, height, width, values}, values channel by channel.

/** Put a frame of zeros around each channel. */
function pad(x, padding) {
  if (padding === 0) return x;
  const height = x.height + 2 * padding;
  const width = x.width + 2 * padding;
  const values = new Float32Array(x.channels * height * width);
  for (let row = 0; row < x.channels * x.height; row++) {
    const channel = Math.floor(row / x.height);
    const to = (channel * height + padding + (row % x.height)) * width + padding;
    values.set(x.values.subarray(row * x.width, (row + 1) * x.width), to);
  }
  return { channels: x.channels, height, width, values };
}

/** Return how often a window of a size fits into a side. */
function windows(side, size, stride) {
  return Math.floor((side - size) / stride) + 1;
}

/** Return the product of a row of weights and a window, plus the bias. */
function product({ weight, bias }, row, values) {
  const start = row * values.length;
  let sum = bias[row];
  for (let i = 0; i < values.length; i++) sum += weight[start + i] * values[i];
  return sum;
}

/** Copy the window whose corner is at (top, left), channel by channel. */
function copyWindow(x, top, left, size, values) {
  let to = 0;
  for (let channel = 0; channel < x.channels; channel++) {
    for (let row = top; row < top + size; row++) {
      const from = (channel * x.height + row) * x.width + left;
      for (let column = 0; column < size; column++) values[to++] = x.values[from + column];
    }
  }
}

function convolve(image, layer) {
  const x = pad(image, layer.padding);
  const [nOut, nIn, size] = layer.shape;
  const height = windows(x.height, size, layer.stride);
  const width = windows(x.width, size, layer.stride);
  const values = new Float32Array(nOut * height * width);
  const seen = new Float32Array(nIn * size * size);
  for (let place = 0; place < height * width; place++) {
    const row = Math.floor(place / width);
    copyWindow(x, row * layer.stride, (place % width) * layer.stride, size, seen);
    for (let out = 0; out < nOut; out++) {
      values[out * height * width + place] = product(layer, out, seen);
    }
  }
  return { channels: nOut, height, width, values };
}

function pool(x, { size, stride }, combine, start, finish) {
  const height = windows(x.height, size, stride);
  const width = windows(x.width, size, stride);
  const values = new Float32Array(x.channels * height * width);
  for (let i = 0; i < values.length; i++) {
    const channel = Math.floor(i / (height * width));
    const row = (Math.floor(i / width) % height) * stride;
    const column = (i % width) * stride;
    let value = start;
    for (let k = 0; k < size * size; k++) {
      const y = channel * x.height + row + Math.floor(k / size);
      value = combine(value, x.values[y * x.width + column + (k % size)]);
    }
    values[i] = finish(value);
  }
  return { channels: x.channels, height, width, values };
}

function multiply(x, layer) {
  const channels = layer.shape[0];
  const values = Float32Array.from({ length: channels }, (_, out) => product(layer, out, x.values));
  return { channels, height: 1, width: 1, values };
}

const kinds = {
  normalize: (x, { mean, std }) => ({ ...x, values: x.values.map((v) => (v / 255 - mean) / std) }),
  conv: convolve,
  linear: multiply,
  relu: (x) => ({ ...x, values: x.values.map((v) => Math.max(0, v)) }),
  flatten: (x) => x, // the values are in one row already
  maxpool: (x, layer) => pool(x, layer, Math.max, -Infinity, (v) => v),
  avgpool: (x, layer) => pool(x, layer, (a, b) => a + b, 0, (v) => v / layer.size ** 2),
  residual(x, { layers }) {
    const made = run(layers, x);
    return { ...made, values: made.values.map((v, i) => v + x.values[i]) };
  },
};

function run(layers, x) {
  for (const layer of layers) x = kinds[layer.kind](x, layer);
  return x;
}

/** Return the logits of an image: its pixels from 0 to 255, row by row, white on black. */
function logitsOf(network, pixels) {
  const [height, width] = network.layers[0].size;
  const image = { channels: 1, height, width, values: Float32Array.from(pixels) };
  return Array.from(run(network.layers, image).values);
}

function softmax(logits) {
  const largest = Math.max(...logits);
  const powers = logits.map((z) => Math.exp(z - largest));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / sum);
}

function sigmoids(logits) {
  return logits.map((z) => 1 / (1 + Math.exp(-z)));
}

/** Return p log2(1/p), the part of an entropy that a probability adds, in bits. */
function bits(p) {
  return p > 0 ? -p * Math.log2(p) : 0;
}

/** Return the entropy of probabilities that add up to 1. */
function entropyOfOne(probs) {
  return probs.reduce((sum, p) => sum + bits(p), 0);
}

/** Return the sum of the entropies of separate yes-or-no questions. */
function entropyOfEach(probs) {
  return probs.reduce((sum, p) => sum + bits(p) + bits(1 - p), 0);
}
