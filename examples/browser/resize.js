// Scales and cuts pictures as Pillow does, to the bit: a canvas scales in its own way, and other pixels may get other
// labels. A picture is { width, height, planes }, each plane a Uint8Array of height * width values.

const sinc = x => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));

const FILTERS = {
  box: { support: 0.5, at: x => (x > -0.5 && x <= 0.5 ? 1 : 0) },
  bilinear: { support: 1, at: x => Math.max(0, 1 - Math.abs(x)) },
  hamming: { support: 1, at: x => (x === 0 ? 1 : Math.abs(x) >= 1 ? 0 : sinc(x) * (0.54 + 0.46 * Math.cos(Math.PI * x))) },
  bicubic: {
    support: 2,
    at: x => {
      const far = Math.abs(x);
      if (far < 1) return (1.5 * far - 2.5) * far * far + 1;
      return far < 2 ? ((far - 5) * far + 8) * far * -0.5 + 2 : 0;
    },
  },
  lanczos: { support: 3, at: x => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0) },
};

const BITS = 22; // of the fraction of a weight
const HALF = 2 ** (BITS - 1);

/** For every value to be made: the first value that it is made of, and the weights of that one and those after it. */
function weightsOf(from, to, filter) {
  const scale = from / to;
  const wide = Math.max(scale, 1);
  const support = filter.support * wide;
  return Array.from({ length: to }, (_, index) => {
    const center = (index + 0.5) * scale;
    const first = Math.max(Math.trunc(center - support + 0.5), 0);
    const last = Math.min(Math.trunc(center + support + 0.5), from);
    const weights = Array.from({ length: last - first }, (_, k) => filter.at((k + first - center + 0.5) * (1 / wide)));
    const sum = weights.reduce((a, b) => a + b, 0);
    const whole = weights.map(weight => {
      const share = (sum === 0 ? weight : weight / sum) * 2 ** BITS;
      return Math.trunc(share < 0 ? share - 0.5 : share + 0.5);
    });
    return { first, weights: whole };
  });
}

/** Scale lines of one direction; `step` is between values of a line, `jump` between lines. */
function along(plane, made, table, count, [stepIn, jumpIn], [stepOut, jumpOut]) {
  for (let line = 0; line < count; line++) {
    for (let index = 0; index < table.length; index++) {
      const { first, weights } = table[index];
      let sum = HALF;
      for (let k = 0; k < weights.length; k++) sum += plane[line * jumpIn + (first + k) * stepIn] * weights[k];
      made[line * jumpOut + index * stepOut] = Math.min(255, Math.max(0, Math.floor(sum / 2 ** BITS)));
    }
  }
  return made;
}

function nearest({ width, height, planes }, toWidth, toHeight) {
  const places = (from, to) => {
    const scale = from / to;
    const found = [];
    for (let at = scale * 0.5; found.length < to; at += scale) found.push(Math.min(Math.trunc(at), from - 1));
    return found;
  };
  const columns = places(width, toWidth);
  const rows = places(height, toHeight);
  const take = plane => Uint8Array.from({ length: toWidth * toHeight }, (_, index) =>
    plane[rows[Math.floor(index / toWidth)] * width + columns[index % toWidth]]);
  return { width: toWidth, height: toHeight, planes: planes.map(take) };
}

/** The picture at another size, as `Image.resize` of Pillow gives it. */
export function resize(picture, toWidth, toHeight, interpolation = "bilinear") {
  const { width, height } = picture;
  if (width === toWidth && height === toHeight) return picture;
  if (interpolation === "nearest") return nearest(picture, toWidth, toHeight);
  const filter = FILTERS[interpolation];
  const across = made => {
    if (made.width === toWidth) return made;
    const table = weightsOf(made.width, toWidth, filter);
    const steps = [[1, made.width], [1, toWidth]];
    const scaled = plane => along(plane, new Uint8Array(toWidth * made.height), table, made.height, ...steps);
    return { width: toWidth, height: made.height, planes: made.planes.map(scaled) };
  };
  const down = made => {
    if (made.height === toHeight) return made;
    const table = weightsOf(made.height, toHeight, filter);
    const steps = [[made.width, 1], [made.width, 1]];
    const scaled = plane => along(plane, new Uint8Array(made.width * toHeight), table, made.width, ...steps);
    return { width: made.width, height: toHeight, planes: made.planes.map(scaled) };
  };
  // Each rounds, so the order counts. This is the order of Pillow 13; earlier ones always begin with the width.
  const downFirst = toHeight < height && height - toHeight > 2 * (width - toWidth);
  return downFirst ? across(down(picture)) : down(across(picture));
}

/** A part of a picture. */
function cut({ width, planes }, left, top, toWidth, toHeight) {
  const take = plane => Uint8Array.from({ length: toWidth * toHeight }, (_, index) =>
    plane[(top + Math.floor(index / toWidth)) * width + left + (index % toWidth)]);
  return { width: toWidth, height: toHeight, planes: planes.map(take) };
}

/** Round halves to even numbers, as Python does. */
function round(value) {
  const low = Math.floor(value);
  const rest = value - low;
  return rest > 0.5 || (rest === 0.5 && low % 2 !== 0) ? low + 1 : low;
}

/** Scale a picture until it covers a size, and cut its middle out: what happens where the network says nothing. */
function cover(picture, width, height) {
  if (picture.width === width && picture.height === height) return picture;
  const scale = Math.max(width / picture.width, height / picture.height);
  const toWidth = Math.max(width, round(picture.width * scale));
  const toHeight = Math.max(height, round(picture.height * scale));
  const scaled = resize(picture, toWidth, toHeight);
  return cut(scaled, Math.floor((toWidth - width) / 2), Math.floor((toHeight - height) / 2), width, height);
}

/** The size that a shorter side of so many pixels gives; or [height, width] as it is. */
function scaledSize({ width, height }, size) {
  if (Array.isArray(size)) return [size[1], size[0]];
  const longer = Math.trunc((size * Math.max(width, height)) / Math.min(width, height));
  return width <= height ? [size, longer] : [longer, size];
}

/** Bring a picture to a network's size, as its notes say. */
export function prepare(picture, notes, width, height) {
  const how = notes ?? {};
  if (how.transform_name) throw new Error(`pictures for this network come from ${how.transform_name}, which is Python`);
  if (how.resize == null && how.crop == null) return cover(picture, width, height);
  let made = picture;
  if (how.resize != null) made = resize(made, ...scaledSize(made, how.resize), how.interpolation);
  if (how.crop != null) {
    const [toHeight, toWidth] = how.crop;
    if (made.width < toWidth || made.height < toHeight) throw new Error("the picture is too small for this network");
    made = cut(made, round((made.width - toWidth) / 2), round((made.height - toHeight) / 2), toWidth, toHeight);
  }
  if (made.width !== width || made.height !== height)
    throw new Error(`the picture comes to ${made.width}x${made.height} pixels; the network takes ${width}x${height}`);
  return made;
}
