"use strict";
(() => {
  const data = document.getElementById("viewer-data");
  if (!data) return;
  const { labels, strips } = JSON.parse(data.textContent);
  const slider = document.getElementById("viewer-slider");
  const output = document.getElementById("viewer-label");
  const cards = [...document.querySelectorAll("#viewer .strip")].map((card, i) => ({
    ...strips[i],
    canvases: [...card.querySelectorAll("canvas")],
    numbers: [...card.querySelectorAll(".number")],
    sheet: Object.assign(new Image(), { src: strips[i].sheet }),
  }));

  const draw = () => {
    const k = slider.valueAsNumber;
    output.textContent = `${k + 1} of ${labels.length}, ${labels[k]}`;
    slider.setAttribute("aria-valuetext", output.textContent);
    for (const card of cards) {
      card.numbers.forEach((cell, i) => { cell.textContent = card.between[k][i]; });
      if (!card.sheet.complete) continue;
      card.canvases.forEach((canvas, i) => {
        const { width: w, height: h } = card;
        canvas.width = w;
        canvas.height = h;
        canvas.getContext("2d").drawImage(card.sheet, i * w, k * h, w, h, 0, 0, w, h);
      });
    }
  };

  const move = (step) => {
    slider.valueAsNumber = Math.min(Math.max(slider.valueAsNumber + step, 0), labels.length - 1);
    draw();
  };

  slider.addEventListener("input", draw);
  for (const card of cards) card.sheet.addEventListener("load", draw);
  document.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const active = document.activeElement;
    const free = active === document.body || active.closest("#viewer");
    if (!step || !free || active === slider || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    move(step);
  });
  document.getElementById("viewer").hidden = false;
  draw();
})();
