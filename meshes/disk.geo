// Disk of radius 5 about the origin: room for standardised data (unit variance) with the tails of its densities.
Mesh.MshFileVersion = 4.1;
R = 5;
h = 0.25;

Point(1) = {0, 0, 0, h};
Point(2) = {R, 0, 0, h};
Point(3) = {0, R, 0, h};
Point(4) = {-R, 0, 0, h};
Point(5) = {0, -R, 0, h};
Circle(1) = {2, 1, 3};
Circle(2) = {3, 1, 4};
Circle(3) = {4, 1, 5};
Circle(4) = {5, 1, 2};
Curve Loop(1) = {1, 2, 3, 4};
Plane Surface(1) = {1};

Physical Surface("disk", 1) = {1};
Physical Curve("boundary", 2) = {1, 2, 3, 4};
