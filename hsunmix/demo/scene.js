// The scene as a picture to click on: `element` is its component, `trigger` tells the server which pixel was chosen.
const scene = () => element.querySelector('.hs-scene');
const place = {row: 0, column: 0};

function mark() {
  const box = scene(), marker = box.querySelector('.hs-marker');
  marker.style.left = `${100 * (place.column + 0.5) / box.dataset.columns}%`;
  marker.style.top = `${100 * (place.row + 0.5) / box.dataset.rows}%`;
  marker.hidden = false;
}

function within(value, size) { return Math.min(Math.max(Math.floor(value), 0), size - 1); }

element.addEventListener('click', (event) => {
  const box = event.target.closest('.hs-scene');
  if (!box) return;
  const area = box.getBoundingClientRect();
  place.row = within((event.clientY - area.top) / area.height * box.dataset.rows, box.dataset.rows);
  place.column = within((event.clientX - area.left) / area.width * box.dataset.columns, box.dataset.columns);
  mark();
  trigger('click', {row: place.row, column: place.column});
});

element.addEventListener('keydown', (event) => {
  const box = event.target.closest('.hs-scene');
  const moves = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], Enter: [0, 0]};
  if (!box || !moves[event.key]) return;
  event.preventDefault();
  place.row = within(place.row + moves[event.key][0], box.dataset.rows);
  place.column = within(place.column + moves[event.key][1], box.dataset.columns);
  mark();
  if (event.key === 'Enter') trigger('click', {row: place.row, column: place.column});
});
