/* Three planes and a 3-D view by NiiVue, with the names of levels drawn over them. */
"use strict";

/* As in verse_data/spine/windows.py, by title. */
verse.windows = {
  bone: { title: "Bone", range: [-500, 1300] },
  soft: { title: "Soft tissue", range: [-160, 240] },
  full: { title: "Full HU", range: [-1024, 3071] },
};

/** What is shown of a scan; NiiVue counts them in this order. */
verse.views = { axial: "Axial", coronal: "Coronal", sagittal: "Sagittal", all: "All four", solid: "3-D" };

/** Millimetres from a slice within which a centroid is named on it. */
verse.near = 15;

/** World axes that run to the right and upwards in a slice, and that of its depth. */
verse.planes = [[0, 1, 2], [0, 2, 1], [1, 2, 0]]; // axial, coronal, sagittal

verse.Viewer = class {
  /** @param onMove called with the world mm of the crosshair, and HU and label of the volume shown */
  constructor(canvas, marks, levels, onMove) {
    Object.assign(this, { canvas, marks, levels, onMove, mask: {}, named: { points: {}, guessed: {} } });
    this.mm = null;
  }

  static works() {
    return !!document.createElement("canvas").getContext("webgl2");
  }

  async attach() {
    const nv = this.nv = new niivue.Niivue({
      isRadiologicalConvention: true, sagittalNoseLeft: true, isSliceMM: true,
      multiplanarShowRender: 1, multiplanarLayout: 2, multiplanarEqualSize: true,
      backColor: [0, 0, 0, 1], crosshairColor: [0.35, 0.85, 1, 0.8], crosshairWidth: 0.35, crosshairWidthUnit: "mm",
      crosshairGap: 40, show3Dcrosshair: true, isOrientationTextVisible: true, fontSizeScaling: 0, fontMinPx: 15,
      fontColor: [1, 0.85, 0.4, 1], dragAndDropEnabled: false, loadingText: "", logLevel: "silent",
      viewModeHotKey: "", clipPlaneHotKey: "", cycleClipPlaneHotKey: "", tileMargin: 4, isResizeCanvas: true,
    });
    nv.keyDownListener = nv.keyUpListener = () => {}; // the page has keys of its own
    await nv.attachToCanvas(this.canvas);
    nv.onLocationChange = (where) => {
      if (!nv.volumes.length) return;
      this.mm = [...where.mm].slice(0, 3);
      const [hu, label] = where.values.map((one) => one.value);
      this.onMove(this.mm, { hu, label: label === undefined ? null : label });
    };
    const draw = nv.drawScene.bind(nv);
    nv.drawScene = (...given) => { this.hideFlesh(); const drawn = draw(...given); this.annotate(); return drawn; };
  }

  clear() {
    this.nv.volumes = [];
    this.nv.overlays = [];
    this.setNames({ points: {}, guessed: {} });
    this.mm = null;
    this.marks.getContext("2d").clearRect(0, 0, this.marks.width, this.marks.height);
  }

  /** Show an image and its labels (NIfTI files) in place of what was shown, with the crosshair at a point. */
  async show(image, label, mm, window) {
    const nv = this.nv;
    const [low, high] = verse.windows[window].range;
    const volumes = [await niivue.NVImage.new(image, "image.nii", "gray", 1, null, low, high)];
    if (label) {
      const mask = await niivue.NVImage.new(label, "label.nii", "gray", this.fill);
      mask.hdr.intent_code = 1002; // labels: NiiVue outlines no others
      mask.setColormapLabel(this.lut());
      volumes.push(mask);
    }
    nv.volumes = volumes;
    nv.opts.atlasOutline = this.edge;
    nv.scene.pan2Dxyzmm = [0, 0, 0, 1];
    nv.setVolume(volumes[0], 0);
    this.setWindow(window);
    if (mm) this.go(mm);
    else nv.createOnLocationChange();
  }

  /** Opacity of the edges of vertebrae where they are outlined, and of what is within. */
  get edge() { return this.mask.outline ? Math.min(1, 2 * this.mask.opacity) : 0; }
  get fill() { return this.mask.outline ? 0.001 : this.mask.opacity; }

  lut() {
    const shown = { R: [0], G: [0], B: [0], A: [0], I: [0], labels: [""] };
    for (const { label, level, colour } of [...this.levels].sort((a, b) => a.label - b.label)) {
      ["R", "G", "B"].forEach((name, at) => shown[name].push(colour[at]));
      shown.A.push(this.mask.hidden.has(level) ? 0 : 255);
      shown.I.push(label);
      shown.labels.push(level);
    }
    return shown;
  }

  setMask(mask) {
    Object.assign(this.mask, mask);
    if (this.nv.volumes.length < 2) return;
    this.nv.volumes[1].setColormapLabel(this.lut());
    this.nv.opts.atlasOutline = this.edge;
    this.nv.setOpacity(1, this.fill);
    this.nv.updateGLVolume();
  }

  setWindow(name) {
    const image = this.nv.volumes[0];
    if (!image) return;
    [image.cal_min, image.cal_max] = verse.windows[name].range;
    this.nv.updateGLVolume();
  }

  setView(name) { this.nv.setSliceType(Object.keys(verse.views).indexOf(name)); }

  /** Turn the 3-D view by degrees. */
  turn(left, up) {
    const { renderAzimuth, renderElevation } = this.nv.scene;
    this.nv.setRenderAzimuthElevation(renderAzimuth + left, renderElevation + up);
  }

  /** Show vertebrae alone in the 3-D view: the CT would be a grey block around them. */
  hideFlesh() {
    const { gl, renderShader: shader, volumes } = this.nv;
    if (!shader || !volumes.length) return;
    shader.use(gl);
    gl.uniform1f(shader.uniforms.backOpacity, volumes.length > 1 && this.mask.opacity ? 0 : 1);
  }

  setNames(named) {
    Object.assign(this.named, named);
    if (this.nv.volumes.length) this.nv.drawScene();
  }

  go(mm) {
    if (!this.nv.volumes.length) return;
    this.nv.scene.crosshairPos = this.nv.mm2frac(mm);
    this.nv.createOnLocationChange();
    this.nv.drawScene();
  }

  /** Move the crosshair by voxels to the right, to the front and upwards. */
  step(x, y, z) {
    if (this.nv.volumes.length) this.nv.moveCrosshairInVox(x, y, z);
  }

  /** Draw the names of levels whose centroid lies near a slice. */
  annotate() {
    const { marks, nv, named } = this;
    if (marks.width !== nv.gl.canvas.width || marks.height !== nv.gl.canvas.height) {
      [marks.width, marks.height] = [nv.gl.canvas.width, nv.gl.canvas.height];
    }
    const pen = marks.getContext("2d");
    pen.clearRect(0, 0, marks.width, marks.height);
    if (!named.on || !nv.volumes.length || !this.mm) return;
    for (const slice of nv.screenSlices) {
      if (slice.axCorSag > 2) continue;
      this.annotateSlice(pen, slice);
    }
  }

  annotateSlice(pen, slice) {
    const [across, up, deep] = verse.planes[slice.axCorSag];
    let [left, top, width, height] = slice.leftTopWidthHeight;
    const mirrored = width < 0;
    if (mirrored) [left, width] = [left + width, -width];
    const scale = devicePixelRatio;
    pen.save();
    pen.beginPath();
    pen.rect(left, top, width, height);
    pen.clip();
    verse.drawNames(pen, this.levels, this.named, this.mask.hidden, (mm) => {
      if (Math.abs(mm[deep] - this.mm[deep]) > verse.near) return null;
      let x = (mm[across] - slice.leftTopMM[0]) / slice.fovMM[0];
      const y = (mm[up] - slice.leftTopMM[1]) / slice.fovMM[1];
      if (mirrored) x = 1 - x;
      return [left + x * width, top + (1 - y) * height];
    }, scale);
    pen.restore();
  }
};

/** Draw the name of each level and a dot at its centroid, or the name alone where the mask lies; `place` gives the pixel, or null. */
verse.drawNames = (pen, levels, named, hidden, place, scale) => {
  pen.textBaseline = "middle";
  for (const { label, level, colour } of levels) {
    const mm = named.points[label] || named.guessed[label];
    const point = mm && !hidden.has(level) ? place(mm) : null;
    if (!point) continue;
    const chosen = level === named.level;
    pen.font = `${chosen ? "bold " : ""}${(chosen ? 15 : 13) * scale}px system-ui, "DejaVu Sans", sans-serif`;
    pen.fillStyle = `rgb(${colour.join(" ")})`;
    pen.strokeStyle = "#000";
    pen.lineWidth = 3 * scale;
    pen.beginPath();
    if (named.points[label]) pen.arc(point[0], point[1], 3 * scale, 0, 7);
    pen.stroke();
    pen.fill();
    pen.strokeText(level, point[0] + 8 * scale, point[1]);
    pen.fillText(level, point[0] + 8 * scale, point[1]);
  }
};
