// The filter of the trails, and the packing list that remembers its ticks.

const filters = document.querySelectorAll(".filter button");
const trails = document.querySelectorAll(".trails article");

for (const filter of filters) {
  filter.addEventListener("click", () => {
    const level = filter.dataset.level;
    for (const other of filters) {
      other.setAttribute("aria-pressed", String(other === filter));
    }
    for (const trail of trails) {
      trail.hidden = level !== "all" && trail.dataset.level !== level;
    }
  });
}

const KEY = "packed";
const boxes = [...document.querySelectorAll(".list input")];
const packed = document.querySelector("#packed");

function showPacked() {
  const count = boxes.filter((box) => box.checked).length;
  packed.textContent = `${count} of ${boxes.length} packed`;
}

function remember() {
  const names = boxes.filter((box) => box.checked).map((box) => box.name);
  localStorage.setItem(KEY, JSON.stringify(names));
  showPacked();
}

if (packed) {
  const names = JSON.parse(localStorage.getItem(KEY) ?? "[]");
  for (const box of boxes) {
    box.checked = names.includes(box.name);
    box.addEventListener("change", remember);
  }
  document.querySelector("#empty").addEventListener("click", () => {
    for (const box of boxes) box.checked = false;
    remember();
  });
  showPacked();
}
