// The comparison: two pictures of equal size on top of each other, a divider, zoom and pan.
// Positions are CSS pixels in the view; `zoom` is CSS pixels per pixel of the result.

const MAX_ZOOM = 16;
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

export class Comparison {
  constructor(root) {
    const find = (id) => root.querySelector(`#${id}`);
    this.view = find("view");
    this.canvas = find("canvas");
    this.before = find("before");
    this.after = find("after");
    this.afterLayer = find("after-layer");
    this.divider = find("divider");
    this.knob = find("knob");
    this.tags = [find("tag-before"), find("tag-after")];
    this.note = find("stage-note");
    this.zoomButtons = root.querySelector(".zoom");
    this.output = find("zoom-value");
    this.width = this.height = 1;
    this.split = 0.5; // share of the visible picture that shows "before"
    this.fitted = true;
    this.chosen = false; // whether somebody has zoomed: then it stays as it is
    this.pointers = new Map();

    this.fitButton = find("zoom-fit");
    this.realButton = find("zoom-real");
    const choose = (button, zoom) => button.addEventListener("click", () => {
      this.chosen = true;
      zoom();
    });
    choose(find("zoom-in"), () => this.zoomBy(1.5));
    choose(find("zoom-out"), () => this.zoomBy(1 / 1.5));
    choose(this.fitButton, () => this.fit());
    choose(this.realButton, () => this.zoomTo(1 / devicePixelRatio));
    this.knob.addEventListener("keydown", (event) => this.knobKey(event));
    this.view.addEventListener("keydown", (event) => this.viewKey(event));
    this.view.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.view.addEventListener("click", (event) => this.click(event));
    this.view.addEventListener("dblclick", (event) => this.doubleClick(event));
    this.view.addEventListener("pointerdown", (event) => this.pointerDown(event));
    this.view.addEventListener("pointermove", (event) => this.pointerMove(event));
    for (const end of ["pointerup", "pointercancel"]) {
      this.view.addEventListener(end, (event) => this.pointerUp(event));
    }
    for (const image of [this.before, this.after]) {
      for (const end of ["load", "error"]) image.addEventListener(end, () => (image.hidden = false));
    }
    this.after.addEventListener("load", () => (this.tags[1].textContent = "After"));
    this.after.addEventListener("error", () => {
      this.explain("The enlarged picture cannot be shown here.");
      this.failed();
    });
    new ResizeObserver(() => {
      if (!this.view.clientWidth) return; // hidden: nothing fits into it
      if (this.fitted) this.fit();
      else this.draw();
    }).observe(this.view);
  }

  // Called where an enlarged picture could not be shown.
  failed() {}

  // Shows no picture, and says why, if there is something to say.
  explain(sentence) {
    for (const image of [this.before, this.after]) image.removeAttribute("src"); // nor what is still on its way
    this.note.textContent = sentence;
    this.note.hidden = !sentence;
    this.view.classList.add("blank", "single");
    this.zoomButtons.hidden = true;
  }

  // Shows a picture of width x height; without `after` there is nothing to compare yet.
  show({ before, after, width, height, name }) {
    const same = width === this.width && height === this.height;
    this.width = width;
    this.height = height;
    this.note.hidden = true;
    this.zoomButtons.hidden = false;
    this.view.classList.remove("blank");
    this.view.style.setProperty("--aspect", `${width} / ${height}`);
    this.view.classList.toggle("single", !after);
    this.before.alt = after ? `${name}, before` : name;
    this.after.alt = after ? `${name}, after` : "";
    for (const [image, source] of [[this.before, before], [this.after, after]]) {
      if (image.getAttribute("src") === source) continue;
      image.hidden = true; // until it has arrived: the browser shows the last picture as long
      if (source) image.src = source;
      else image.removeAttribute("src");
      if (image === this.after) this.tags[1].textContent = "After, on its way";
    }
    if (!same || this.fitted) this.fit();
    else this.draw();
    if (after) this.reveal();
  }

  // Made small to fit, before and after look the same: shows their middle pixel by pixel, unless somebody has zoomed.
  reveal() {
    const real = 1 / devicePixelRatio;
    if (!this.chosen && this.fitted && this.fitZoom() < 0.9 * real) this.zoomTo(real);
  }

  size() {
    return [this.view.clientWidth, this.view.clientHeight];
  }

  fitZoom() {
    const [width, height] = this.size();
    return Math.min(width / this.width, height / this.height, MAX_ZOOM);
  }

  fit() {
    this.zoom = this.fitZoom();
    const [width, height] = this.size();
    this.x = (width - this.width * this.zoom) / 2;
    this.y = (height - this.height * this.zoom) / 2;
    this.draw();
  }

  zoomBy(factor, x, y) {
    this.zoomTo(this.zoom * factor, x, y);
  }

  zoomTo(zoom, x = this.view.clientWidth / 2, y = this.view.clientHeight / 2) {
    zoom = clamp(zoom, Math.min(this.fitZoom(), 1 / devicePixelRatio), MAX_ZOOM);
    this.x = x - ((x - this.x) * zoom) / this.zoom;
    this.y = y - ((y - this.y) * zoom) / this.zoom;
    this.zoom = zoom;
    this.draw();
  }

  move(dx, dy) {
    this.x += dx;
    this.y += dy;
    this.draw();
  }

  // The part of the view that the picture covers, from left to right.
  visible() {
    return [Math.max(0, this.x), Math.min(this.view.clientWidth, this.x + this.width * this.zoom)];
  }

  setSplit(split) {
    this.split = clamp(split, 0, 1);
    this.draw();
  }

  splitAt(x) {
    const [left, right] = this.visible();
    this.setSplit((x - left) / Math.max(1, right - left));
  }

  draw() {
    const [viewWidth, viewHeight] = this.size();
    const width = this.width * this.zoom;
    const height = this.height * this.zoom;
    // a picture larger than the view covers it; a smaller one stays in the middle
    this.x = width <= viewWidth ? (viewWidth - width) / 2 : clamp(this.x, viewWidth - width, 0);
    this.y = height <= viewHeight ? (viewHeight - height) / 2 : clamp(this.y, viewHeight - height, 0);
    this.fitted = Math.abs(this.zoom / this.fitZoom() - 1) < 0.001;
    this.view.classList.toggle("fitted", this.fitted);
    const [left, right] = this.visible();
    const line = left + this.split * (right - left);
    // on whole pixels of the screen: between them, the browser would blur what is to be judged
    const [x, y] = [this.x, this.y].map((place) => Math.round(place * devicePixelRatio) / devicePixelRatio);
    Object.assign(this.canvas.style, {
      width: `${width}px`,
      height: `${height}px`,
      transform: `translate(${x}px, ${y}px)`,
    });
    this.afterLayer.style.clipPath = `inset(0 0 0 ${clamp(line - this.x, 0, width)}px)`;
    const [top, bottom] = [Math.max(0, this.y), Math.min(viewHeight, this.y + height)];
    Object.assign(this.divider.style, { left: `${line}px`, top: `${top}px`, height: `${bottom - top}px` });
    const percent = Math.round(this.split * 100);
    this.knob.setAttribute("aria-valuenow", percent);
    this.knob.setAttribute("aria-valuetext", `${percent} % before, ${100 - percent} % after`);
    for (const tag of this.tags) tag.style.top = `${top + 14}px`;
    this.tags[0].style.left = `${left + 14}px`;
    this.tags[1].style.right = `${viewWidth - right + 14}px`;
    this.tags[0].classList.toggle("faded", line - left < 90);
    this.tags[1].classList.toggle("faded", right - line < 80);
    this.fitButton.setAttribute("aria-pressed", this.fitted);
    this.realButton.setAttribute("aria-pressed", Math.abs(this.zoom * devicePixelRatio - 1) < 0.001);
    this.output.textContent = `${Math.round(this.zoom * devicePixelRatio * 100)} %`;
  }

  knobKey(event) {
    const step = event.shiftKey ? 0.1 : 0.02;
    const moves = {
      ArrowLeft: -step, ArrowDown: -step, ArrowRight: step, ArrowUp: step, PageDown: -0.1, PageUp: 0.1, Home: -1, End: 1,
    };
    if (!(event.key in moves)) return;
    event.preventDefault();
    event.stopPropagation();
    this.setSplit(this.split + moves[event.key]);
  }

  viewKey(event) {
    const actions = {
      "+": () => this.zoomBy(1.25),
      "=": () => this.zoomBy(1.25),
      "-": () => this.zoomBy(0.8),
      0: () => this.fit(),
      1: () => this.zoomTo(1 / devicePixelRatio),
      ArrowLeft: () => this.move(60, 0),
      ArrowRight: () => this.move(-60, 0),
      ArrowUp: () => this.move(0, 60),
      ArrowDown: () => this.move(0, -60),
    };
    if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in actions)) return;
    event.preventDefault();
    if (!event.key.startsWith("Arrow")) this.chosen = true;
    actions[event.key]();
  }

  point(event) {
    const box = this.view.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  }

  wheel(event) {
    if (this.view.classList.contains("blank")) return; // the page scrolls
    event.preventDefault();
    this.chosen = true;
    const { x, y } = this.point(event);
    this.zoomBy(Math.exp(-clamp(event.deltaY, -100, 100) * (event.ctrlKey ? 0.01 : 0.002)), x, y);
  }

  // For those who cannot drag; at the end of a drag it changes nothing.
  click(event) {
    if (event.detail > 1) return;
    this.unclicked = this.split;
    if (this.fitted && !this.view.classList.contains("single")) this.splitAt(this.point(event).x);
  }

  doubleClick(event) {
    if (this.divider.contains(event.target)) return;
    this.chosen = true;
    this.split = this.unclicked ?? this.split; // the first of the two clicks was none
    const { x, y } = this.point(event);
    if (this.fitted) this.zoomTo(Math.max(1 / devicePixelRatio, this.zoom * 2), x, y);
    else this.fit();
  }

  pointerDown(event) {
    if (event.button) return;
    this.view.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, this.point(event));
    const [left, right] = this.visible();
    const line = left + this.split * (right - left);
    const comparing = !this.view.classList.contains("single");
    const near = this.divider.contains(event.target) || Math.abs(this.point(event).x - line) < 22;
    // nothing to pan in a fitted picture: the whole of it moves the divider
    this.dragging = comparing && (near || this.fitted) ? "split" : "pan";
    if (near) this.knob.focus({ preventScroll: true });
    this.view.classList.toggle("moving", this.dragging === "pan");
  }

  pointerMove(event) {
    const last = this.pointers.get(event.pointerId);
    if (!last) return;
    const now = this.point(event);
    if (this.pointers.size === 2) {
      const [other] = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, point]) => point);
      const distance = (point) => Math.hypot(point.x - other.x, point.y - other.y) || 1;
      this.dragging = "pinch";
      this.chosen = true;
      this.move((now.x - last.x) / 2, (now.y - last.y) / 2);
      this.zoomBy(distance(now) / distance(last), (now.x + other.x) / 2, (now.y + other.y) / 2);
    } else if (this.dragging === "split") {
      this.splitAt(now.x);
    } else if (this.dragging === "pan") {
      this.move(now.x - last.x, now.y - last.y);
    }
    this.pointers.set(event.pointerId, now);
  }

  pointerUp(event) {
    this.pointers.delete(event.pointerId);
    this.view.classList.remove("moving");
    if (this.dragging === "pinch") this.dragging = null;
  }
}
