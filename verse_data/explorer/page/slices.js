/* Slices on a plain canvas, where the browser has no WebGL2: axial, coronal and sagittal. */
"use strict";

/** Voxels, size and affine of a NIfTI-1 file as this package writes it. */
verse.readNifti = (buffer) => {
  const view = new DataView(buffer);
  const shape = [42, 44, 46].map((at) => view.getInt16(at, true));
  const affine = [280, 296, 312].map((row) => [0, 4, 8, 12].map((at) => view.getFloat32(row + at, true)));
  const kind = view.getInt16(70, true) === 2 ? Uint8Array : Int16Array;
  return { shape, affine, data: new kind(buffer, 352) };
};

verse.SliceViewer = class {
  constructor(canvas, marks, levels, onMove) {
    Object.assign(this, { canvas, marks, levels, onMove, mask: {}, named: { points: {}, guessed: {} } });
    this.window = "bone";
    this.tiles = [];
  }

  async attach() {
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    this.canvas.addEventListener("pointerdown", (event) => this.click(event));
    this.canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
  }

  clear() { this.image = this.label = null; this.setNames({ points: {}, guessed: {} }); }

  async show(image, label, mm, window) {
    this.image = verse.readNifti(image);
    this.label = label ? verse.readNifti(label) : null;
    this.window = window;
    this.inverse = inverted(this.image.affine);
    this.go(mm || this.world(this.image.shape.map((size) => Math.floor(size / 2))));
  }

  setMask(mask) { Object.assign(this.mask, mask); this.draw(); }
  setWindow(name) { this.window = name; this.draw(); }
  setNames(named) { Object.assign(this.named, named); this.draw(); }
  setView(name) { this.view = name; this.draw(); }
  turn() {} // there is no 3-D view

  world(voxel) {
    return this.image.affine.map((row) => row[0] * voxel[0] + row[1] * voxel[1] + row[2] * voxel[2] + row[3]);
  }

  voxel(mm) {
    const from = this.image.affine.map((row, at) => mm[at] - row[3]);
    return this.inverse.map((row) => row[0] * from[0] + row[1] * from[1] + row[2] * from[2]);
  }

  go(mm) {
    if (!this.image) return;
    const { shape } = this.image;
    this.mm = mm;
    this.at = this.voxel(mm).map((place, axis) => Math.max(0, Math.min(shape[axis] - 1, Math.round(place))));
    this.draw();
    const index = this.at[0] + shape[0] * (this.at[1] + shape[1] * this.at[2]);
    this.onMove(mm, { hu: this.image.data[index], label: this.label ? this.label.data[index] : null });
  }

  step(x, y, z) {
    if (this.image) this.go(this.world([this.at[0] + x, this.at[1] + y, this.at[2] + z]));
  }

  draw() {
    const scale = devicePixelRatio;
    for (const canvas of [this.canvas, this.marks]) {
      canvas.width = canvas.clientWidth * scale;
      canvas.height = canvas.clientHeight * scale;
    }
    if (!this.image) return;
    const pen = this.canvas.getContext("2d");
    const sizes = this.image.affine[0].slice(0, 3).map((_, axis) => Math.hypot(...this.image.affine.map((row) => row[axis])));
    const mm = this.image.shape.map((size, axis) => size * sizes[axis]);
    const [wide, high] = [this.canvas.width, this.canvas.height];
    const one = ["axial", "coronal", "sagittal"].indexOf(this.view);
    const [width, height] = one < 0 ? [mm[0] + mm[1], mm[1] + mm[2]] : verse.planes[one].map((axis) => mm[axis]);
    const zoom = Math.min(wide / width, high / height) * 0.97;
    const middle = one < 0 ? [mm[0] * zoom, mm[1] * zoom] : [0, 0];
    const places = [[0, 0], [0, middle[1]], [middle[0], middle[1]]];
    pen.clearRect(0, 0, wide, high);
    const all = verse.planes.map(([across, up, deep], plane) => ({
      plane, across, up, deep, left: places[plane][0] + 6, top: places[plane][1] + 6,
      width: mm[across] * zoom, height: mm[up] * zoom,
    }));
    this.tiles = one < 0 ? all : [all[one]];
    this.tiles.forEach((tile) => this.drawTile(pen, tile));
  }

  drawTile(pen, tile) {
    const { across, up, deep } = tile;
    const [columns, rows] = [this.image.shape[across], this.image.shape[up]];
    const pixels = new ImageData(columns, rows);
    const strides = [1, this.image.shape[0], this.image.shape[0] * this.image.shape[1]];
    const [low, high] = verse.windows[this.window].range;
    const colours = {};
    for (const { label, level, colour } of this.levels) if (!this.mask.hidden.has(level)) colours[label] = colour;
    const inside = (index) => (this.label && this.label.data[index]) || 0;
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        const index = column * strides[across] + row * strides[up] + this.at[deep] * strides[deep];
        const grey = 255 * Math.max(0, Math.min(1, (this.image.data[index] - low) / (high - low)));
        // Head and front up; the patient's right, and the front in the sagittal plane, on the left.
        const at = 4 * ((rows - 1 - row) * columns + (columns - 1 - column));
        const value = inside(index);
        const edge = value && (inside(index - strides[across]) !== value || inside(index + strides[across]) !== value
          || inside(index - strides[up]) !== value || inside(index + strides[up]) !== value);
        const colour = colours[value];
        const share = !colour ? 0 : !this.mask.outline ? this.mask.opacity : edge ? Math.min(1, 2 * this.mask.opacity) : 0;
        for (let part = 0; part < 3; part++) pixels.data[at + part] = grey * (1 - share) + (share ? colour[part] * share : 0);
        pixels.data[at + 3] = 255;
      }
    }
    const made = new OffscreenCanvas(columns, rows);
    made.getContext("2d").putImageData(pixels, 0, 0);
    pen.imageSmoothingEnabled = true;
    pen.drawImage(made, tile.left, tile.top, tile.width, tile.height);
    this.drawMarks(tile, columns, rows);
  }

  drawMarks(tile, columns, rows) {
    const pen = this.marks.getContext("2d");
    const scale = devicePixelRatio;
    const pixel = (voxel) => [
      tile.left + (1 - (voxel[tile.across] + 0.5) / columns) * tile.width,
      tile.top + (1 - (voxel[tile.up] + 0.5) / rows) * tile.height,
    ];
    const [x, y] = pixel(this.at);
    pen.save();
    pen.beginPath();
    pen.rect(tile.left, tile.top, tile.width, tile.height);
    pen.clip();
    pen.strokeStyle = "#5ad8ffcc";
    pen.strokeRect(x, tile.top, 0, tile.height);
    pen.strokeRect(tile.left, y, tile.width, 0);
    pen.fillStyle = "#ffd966";
    pen.font = `${14 * scale}px system-ui, "DejaVu Sans", sans-serif`;
    const [left, top] = [["R", "A"], ["R", "S"], ["A", "S"]][tile.plane];
    pen.fillText(left, tile.left + 4, tile.top + tile.height / 2);
    pen.fillText(top, tile.left + tile.width / 2, tile.top + 16 * scale);
    if (this.named.on) {
      verse.drawNames(pen, this.levels, this.named, this.mask.hidden,
        (mm) => (Math.abs(mm[tile.deep] - this.mm[tile.deep]) > verse.near ? null : pixel(this.voxel(mm))), scale);
    }
    pen.restore();
  }

  tileAt(event) {
    const scale = devicePixelRatio;
    const [x, y] = [event.offsetX * scale, event.offsetY * scale];
    const tile = this.tiles.find((one) => x >= one.left && x < one.left + one.width && y >= one.top && y < one.top + one.height);
    return [tile, x, y];
  }

  click(event) {
    const [tile, x, y] = this.tileAt(event);
    if (!tile || !this.image) return;
    const voxel = [...this.at];
    voxel[tile.across] = (1 - (x - tile.left) / tile.width) * this.image.shape[tile.across] - 0.5;
    voxel[tile.up] = (1 - (y - tile.top) / tile.height) * this.image.shape[tile.up] - 0.5;
    this.go(this.world(voxel));
  }

  wheel(event) {
    const [tile] = this.tileAt(event);
    if (!tile || !this.image) return;
    event.preventDefault();
    const steps = [0, 0, 0];
    steps[tile.deep] = Math.sign(event.deltaY);
    this.step(...steps);
  }
};

/** The inverse of the linear part of an affine. */
function inverted([[a, b, c], [d, e, f], [g, h, i]]) {
  const whole = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g);
  return [
    [e * i - f * h, c * h - b * i, b * f - c * e],
    [f * g - d * i, a * i - c * g, c * d - a * f],
    [d * h - e * g, b * g - a * h, a * e - b * d],
  ].map((row) => row.map((value) => value / whole));
}
