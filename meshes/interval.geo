// The interval [-4, 4] with cells that become finer towards the middle.
Mesh.MshFileVersion = 4.1;
Point(1) = {-4, 0, 0, 0.08};
Point(2) = {0, 0, 0, 0.02};
Point(3) = {4, 0, 0, 0.08};
Line(1) = {1, 2};
Line(2) = {2, 3};

Physical Curve("left half", 1) = {1};
Physical Curve("right half", 2) = {2};
Physical Point("ends", 3) = {1, 3};
